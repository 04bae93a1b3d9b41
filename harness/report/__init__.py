"""Charts, tables and pages of a comparison, a sweep or a plan."""
