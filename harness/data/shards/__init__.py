"""Shards of tokens: built from pieces of text by any number of processes, and opened by many readers."""
