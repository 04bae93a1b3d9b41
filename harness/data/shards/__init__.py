"""Shards of tokens: built piece by piece from text, by any number of processes, and opened by many readers."""
