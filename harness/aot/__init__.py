"""Ahead-of-time analysis of training steps without their target devices: `python -m harness.aot`."""
