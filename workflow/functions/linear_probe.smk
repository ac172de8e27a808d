# Settings, targets and needs: logistic regression on the features of every layer.
