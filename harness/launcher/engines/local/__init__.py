"""Engine for workers that are processes of this machine."""
