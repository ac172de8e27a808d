"""What skip connections carry, against what attention and MLP add."""
