"""Environment of a process that trains on CPU. To be set before jax is imported, so it imports none."""

from __future__ import annotations

import ctypes
import functools
from importlib import metadata

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of malloc.h."""

TIMEOUT_SECONDS = 1800
"""XLA gives up a collective after 30-40 s by default: on a busy host that kills a healthy block."""

COLLECTIVE_TIMEOUTS = (
    f"--xla_cpu_collective_timeout_seconds={TIMEOUT_SECONDS}",
    f"--xla_cpu_collective_call_warn_stuck_timeout_seconds={TIMEOUT_SECONDS}",
    f"--xla_cpu_collective_call_terminate_timeout_seconds={TIMEOUT_SECONDS}",
)

YNN_PRODUCTS = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT"
"""Matrix products by the XNNPACK successor: faster, and the same bits on any number of devices and cores."""

ONE_MODULE = "--xla_cpu_parallel_codegen_split_count=1"
"""Kernels go through LLVM as one module: a quarter less work than in 32 parts, and the same bits."""


def cpu_env(devices: int) -> dict[str, str]:
    """Environment variables for `devices` simulated devices.

    The whole of XLA_FLAGS is ours, because a replay needs all of it. A flag that XLA does not know
    aborts the process, hence only for the jaxlib versions in which each was tried.
    """
    flags = (YNN_PRODUCTS, ONE_MODULE, *COLLECTIVE_TIMEOUTS) if _accepts_flags(_jaxlib_version()) else ()
    return {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": " ".join(flags)}


@functools.cache
def _jaxlib_version() -> str:
    """Of jaxlib; looked up once, since a sweep asks for each of its workers."""
    return metadata.version("jaxlib")


def disable_malloc_trim() -> None:
    """Let the C library keep freed memory instead of handing it back.

    XLA asks for its scratch space anew each step; by default glibc maps and unmaps pieces of that size, and
    the page faults cost a small model a third of its step. Elsewhere than on glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _accepts_flags(version: str) -> bool:
    return version.startswith("0.10.")
