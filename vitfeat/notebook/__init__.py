"""What a notebook calls: an extraction without the workflow, and scores of arrays.

All of it is there as ``vitfeat.NAME``; docs/notebook.md has an example of each.
"""
