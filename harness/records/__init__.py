"""Files of runs and sweeps: writing, reading, checking."""
