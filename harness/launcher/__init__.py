"""Launch of a sweep: its plan, its engines, its workers and the placement of their runs on devices."""
