"""Tables to figures: what analyses share."""
