"""Simulated devices for every test: set before anything imports jax."""

import os

from harness.parallel.profile import cpu_profile

os.environ.update(cpu_profile(devices=8))
