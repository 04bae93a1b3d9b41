"""Rendezvous, initialisation and agreement of a run's processes."""
