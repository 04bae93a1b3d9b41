"""Data frames and values that charts and tables are made from."""
