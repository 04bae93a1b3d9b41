"""Optimizers of papers and speed-runs, one file each. Importing this package registers them."""
