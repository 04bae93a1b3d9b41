"""The FLOPs of a traced program."""
