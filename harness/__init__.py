"""Paired A/B training and honest comparison of loss curves."""
