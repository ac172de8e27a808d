# Annotated regions: k-means of their features.
