"""Asks a finished run by running it.

`checkpoint` finds what a user names; `subject` restores it on one simulated device and asks it; each
question is a file of its own (`diff`). Nothing here imports JAX before the process is prepared.
"""
