"""Stages of a sweep, one file each."""
