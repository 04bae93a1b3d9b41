"""Proof on one accelerator: `make test-gpu`."""
