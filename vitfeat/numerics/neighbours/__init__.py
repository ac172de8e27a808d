"""The images nearest to others, exactly, of any number of images."""

from vitfeat.numerics.neighbours.search import Neighbours, Read, nearest_images

__all__ = ["Neighbours", "Read", "nearest_images"]
