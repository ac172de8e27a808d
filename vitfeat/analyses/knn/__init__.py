"""Classes by votes of the nearest training images."""
