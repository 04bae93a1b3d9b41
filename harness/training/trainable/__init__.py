"""Trainable parameters of a model."""
