# Settings, targets and needs: objects followed through videos.
