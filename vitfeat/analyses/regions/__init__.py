"""k-means of features pooled under annotated masks."""
