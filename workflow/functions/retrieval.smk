# Settings, targets and needs: retrieval of images of the same landmark.
