"""Worker process, which trains the runs it is given."""
