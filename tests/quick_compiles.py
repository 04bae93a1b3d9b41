"""Flags with which XLA compiles a tiny model in a fifth of the time, where nobody measures its speed."""

from __future__ import annotations

from collections.abc import MutableMapping

from harness.core.jax_setup.cpu_flags import unknown_flags

QUICK_COMPILES = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false")


def compile_quickly(env: MutableMapping[str, str]) -> None:
    """Add the flags to an environment with XLA_FLAGS, which JAX has not read yet."""
    unknown = unknown_flags(QUICK_COMPILES)
    quick = [flag for flag in QUICK_COMPILES if flag not in unknown]
    env["XLA_FLAGS"] = " ".join([env["XLA_FLAGS"], *quick])
