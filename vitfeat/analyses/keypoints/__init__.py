"""Points of one image found in another."""
