"""Progress of long phases, and of waiting for another process."""
