# k-means of features against classes.
