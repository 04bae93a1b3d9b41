"""Workers as Slurm jobs or steps."""
