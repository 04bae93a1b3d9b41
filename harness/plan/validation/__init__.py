"""Errors of the cost model on published runs."""
