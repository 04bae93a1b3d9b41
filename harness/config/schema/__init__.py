"""Config keys: a dataclass for each node."""
