"""What the commands do between stores and files: read, call a pure function, write.

The only place where analyses meet stores.
"""
