"""Models compared by several measures, with confidence intervals."""
