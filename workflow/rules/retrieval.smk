# Retrieval of images of the same landmark.
