# Classes by the votes of nearest training images.
