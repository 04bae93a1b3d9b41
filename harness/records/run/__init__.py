"""Files of one run."""
