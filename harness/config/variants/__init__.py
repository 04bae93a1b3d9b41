"""Variants of a sweep: values of a swept key, or questions of experiments/questions beside their control."""
