"""Charts of the report, as altair specifications."""
