"""The images nearest to others, exactly, of any number of images."""

from vitfeat.numerics.neighbours.search import Neighbours, Read, nearest

__all__ = ["Neighbours", "Read", "nearest"]
