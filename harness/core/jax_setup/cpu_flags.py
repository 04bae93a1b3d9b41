"""Environment of a process that trains on CPU. Set it before the first JAX import; this file imports none."""

from __future__ import annotations

import functools
import mmap
from importlib import util
from pathlib import Path

TIMEOUT_SECONDS = 1800
"""Timeout of a collective. The default, 30-40 s, kills a healthy block on a busy host."""

COLLECTIVE_TIMEOUTS = (
    f"--xla_cpu_collective_timeout_seconds={TIMEOUT_SECONDS}",
    f"--xla_cpu_collective_call_warn_stuck_timeout_seconds={TIMEOUT_SECONDS}",
    f"--xla_cpu_collective_call_terminate_timeout_seconds={TIMEOUT_SECONDS}",
)


_LIBRARY = "--xla_cpu_experimental_ynn_fusion_type="

YNNPACK = f"{_LIBRARY}LIBRARY_FUSION_TYPE_DOT"
"""Flag that runs matrix products with YNNPACK: faster, same bits for any number of devices and cores. With
its types for elementwise functions programs compile faster, but jaxlib 0.10.2 refuses some layouts then."""

MATRIX_UNIT = f"{YNNPACK},LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
"""The same, and factors of bfloat16 reach YNNPACK as they are, for a CPU whose matrix unit multiplies them.
Other CPUs multiply them at half the speed of factors that are widened to float32, as `YNNPACK` does."""

NO_UNROLLING = "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling"
"""Flag that keeps loops as they are: LLVM's unrolling takes a seventh of a compile, and no step is faster."""

ONE_MODULE = "--xla_cpu_parallel_codegen_split_count=1"
"""Flag that compiles all kernels as one LLVM module: a quarter less work than 32 modules, same bits."""


def has_matrix_unit(description: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the CPU has a matrix unit for bfloat16 (AMX), by the kernel's description of it."""
    try:
        with description.open() as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return False
    return "amx_bf16" in flags.split()


CPU_FLAGS = (MATRIX_UNIT if has_matrix_unit() else YNNPACK, NO_UNROLLING, ONE_MODULE, *COLLECTIVE_TIMEOUTS)
"""All flags of XLA, in the order in which runs record them."""


def cpu_env(devices: int) -> dict[str, str]:
    """Return the environment variables for `devices` simulated CPU devices.

    This replaces XLA_FLAGS, because a replay needs all of it. XLA aborts on an unknown flag, so only those
    are set that the installed one knows.
    """
    missing_flags = unknown_flags(CPU_FLAGS)
    flags = [flag for flag in CPU_FLAGS if flag not in missing_flags]
    return {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": " ".join(flags)}


@functools.cache
def unknown_flags(flags: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of `flags` that the installed XLA does not know: their names are not in its library, which
    is searched as a file, since loading it takes a second. The search takes some 30 ms."""
    library = _xla_library()
    if library is None:
        return flags
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return tuple(flag for flag in flags if not _is_known(flag, content))


def _is_known(flag: str, library: mmap.mmap) -> bool:
    """Return whether the library holds the flag's name, as a C string, and each word of its value."""
    name, _, value = flag.removeprefix("--").partition("=")
    has_name = library.find(name.encode() + b"\0") >= 0
    return has_name and (value.isdecimal() or all(library.find(w.encode()) >= 0 for w in value.split(",")))


def _xla_library() -> Path | None:
    """Return the library of jaxlib that holds XLA; None if it is not where it was."""
    jaxlib = util.find_spec("jaxlib")
    folders = jaxlib.submodule_search_locations if jaxlib else None
    return next((path for folder in folders or () for path in Path(folder).glob("libjax_common*")), None)
