# Settings, targets and needs: keypoints found in other images.
