"""The host of this process: what others do on it."""
