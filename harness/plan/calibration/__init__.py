"""Uncertainty of predictions, calibrated with published runs."""
