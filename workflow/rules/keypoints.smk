# Keypoints found in other images.
