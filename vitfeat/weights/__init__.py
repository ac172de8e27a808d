"""Published weights: where they come from, the network, and a file read without running code."""
