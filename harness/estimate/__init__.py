"""Memory and time that a run would need on described devices. Planner, launcher and training share it."""
