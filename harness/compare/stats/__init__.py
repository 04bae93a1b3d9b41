"""Statistics of paired losses: effects, intervals, multipliers, tests and power."""
