"""Objects of the first frame, followed through a video."""
