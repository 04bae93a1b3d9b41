"""Distance between two checkpoints, and bitwise checks of a replayed run."""
