"""Placement of runs: when each trains, and on which devices."""
