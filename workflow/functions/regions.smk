# Settings, targets and needs: annotated regions: k-means of their features.
