# Settings, targets and needs: classes by the votes of nearest training images.
