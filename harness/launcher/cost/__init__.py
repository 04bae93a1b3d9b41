"""Cost of a run on this machine: how long it will take, and how wrong earlier predictions were."""
