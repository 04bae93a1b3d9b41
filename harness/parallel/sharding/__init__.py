"""Meshes, and the sharding of arrays over their devices."""
