"""The cache folder: where it is, how entries enter and leave it, what it holds."""
