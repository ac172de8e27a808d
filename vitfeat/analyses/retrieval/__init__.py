"""Images of the same landmark, ranked."""
