"""Environment of a process that trains on CPU. Set it before the first JAX import; this file imports none."""

from __future__ import annotations

import ctypes
import functools
from importlib import metadata

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of `mallopt`, from malloc.h."""

TIMEOUT_SECONDS = 1800
"""Timeout of a collective. The default, 30-40 s, kills a healthy block on a busy host."""

COLLECTIVE_TIMEOUTS = (
    f"--xla_cpu_collective_timeout_seconds={TIMEOUT_SECONDS}",
    f"--xla_cpu_collective_call_warn_stuck_timeout_seconds={TIMEOUT_SECONDS}",
    f"--xla_cpu_collective_call_terminate_timeout_seconds={TIMEOUT_SECONDS}",
)

YNN_PRODUCTS = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT"
"""Flag that runs matrix products with YNNPACK: faster, same bits for any number of devices and cores."""

ONE_MODULE = "--xla_cpu_parallel_codegen_split_count=1"
"""Flag that compiles all kernels as one LLVM module: a quarter less work than 32 modules, same bits."""


def cpu_env(devices: int) -> dict[str, str]:
    """Return the environment variables for `devices` simulated CPU devices.

    This replaces XLA_FLAGS, because a replay needs all of it. XLA aborts on an unknown flag, so the flags
    are set only for jaxlib versions on which they were tested.
    """
    flags = (YNN_PRODUCTS, ONE_MODULE, *COLLECTIVE_TIMEOUTS) if _jaxlib_version().startswith("0.10.") else ()
    return {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": " ".join(flags)}


@functools.cache
def _jaxlib_version() -> str:
    """Return the version of jaxlib, cached because a sweep asks once per worker."""
    return metadata.version("jaxlib")


def disable_malloc_trim() -> None:
    """Make glibc keep freed memory instead of returning it to the kernel; a no-op with other C libraries.

    XLA allocates its scratch space at every step. By default glibc maps and unmaps blocks of that size, and
    the page faults cost a small model a third of its step time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
