"""Linear CKA of the layers of models, from Gram matrices."""
