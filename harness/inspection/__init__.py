"""Diff, replay, export and samples of finished runs. JAX is imported only after `prepare_process`."""
