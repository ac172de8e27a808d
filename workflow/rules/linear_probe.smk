# Logistic regression on the features of every layer.
