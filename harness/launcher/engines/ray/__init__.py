"""Engine for workers that Ray actors start and watch."""
