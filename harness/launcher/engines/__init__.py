"""Engines that run workers: local processes, Slurm, Ray."""
