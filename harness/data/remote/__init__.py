"""Data files behind URLs: listed, fetched into the cache folder, and checked."""
