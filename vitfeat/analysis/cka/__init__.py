"""Linear CKA: Gram matrices, made and on disk, and what they have in common."""
