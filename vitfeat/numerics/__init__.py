"""Arrays to arrays, shared by analyses."""
