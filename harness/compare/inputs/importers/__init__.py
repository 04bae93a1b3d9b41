"""Importers of logs: one file a format. `open_logs.read_logs` finds what a path is and reads it."""
