"""Simulated devices for every test, set before anything imports jax, and the same examples every time."""

import os

from hypothesis import settings

from harness.core.cpu_flags import cpu_profile

os.environ.update(cpu_profile(devices=8))

# A suite that fails once in a hundred runs is not believed when it does.
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")
