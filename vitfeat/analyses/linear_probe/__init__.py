"""Classes by logistic regression on every layer."""
