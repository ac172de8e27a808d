"""The embedded default: real handwritten digits and six tiny ViTs trained on them."""
