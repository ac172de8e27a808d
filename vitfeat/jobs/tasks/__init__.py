"""Jobs of the tasks: stores and annotations in, tables and predictions out."""
