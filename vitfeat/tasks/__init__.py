"""Tasks: arrays to predictions and scores."""
