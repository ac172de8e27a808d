"""k-means of features against the classes of images."""
