"""Execution of the layers: one after another, in a scan, or in the stages of a pipeline."""
