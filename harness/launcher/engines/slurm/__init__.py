"""Engines for workers that are Slurm jobs or job steps."""
