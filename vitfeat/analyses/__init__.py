"""What a store is turned into: a package each, from settings to figures."""
