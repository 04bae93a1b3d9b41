"""Sweeps and plans as Python calls: the command runs as a child process, and its result is opened."""
