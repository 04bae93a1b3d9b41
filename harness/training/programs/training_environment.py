"""Environment of this training process, as programs depend on it and as run.json records it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.extend import backend as jax_backend

from harness.core.jax_setup.jax_variables import compiler_variables
from harness.parallel.processes.jax_distributed import COLLECTIVES
from harness.records.run.environment import Environment
from harness.records.run.provenance import package_versions
from harness.training.programs.stored_executable import Device


def program_environment(devices: Sequence[Device]) -> dict[str, Any]:
    """Return what determines a compiled program besides its text: versions, machine, flags, variables."""
    return {
        "versions": package_versions(),
        "platform": jax_backend.get_backend().platform,
        "kind": devices[0].device_kind,
        "machine": [platform.machine(), _cpu_features()],
        "flags": os.environ.get("XLA_FLAGS", ""),
        "variables": compiler_variables(),
    }


def current_environment(devices: Sequence[Device]) -> Environment:
    """Return the environment of a run on these devices, for run.json."""
    environment = program_environment(devices)
    machine, features = environment["machine"]
    # Sums over three or more devices depend on the library of CPU collectives in their last bits.
    has_collectives = jax.distributed.is_initialized() and environment["platform"] == "cpu"
    return Environment(
        platform=environment["platform"],
        kind=environment["kind"],
        devices=len(devices),
        process_devices=jax.local_device_count(),
        cores=len(os.sched_getaffinity(0)),
        machine=machine,
        features=features.partition(":")[2].strip(),
        flags=environment["flags"],
        versions=environment["versions"],
        collectives=COLLECTIVES if has_collectives else "",
        variables=environment["variables"],
    )


def _cpu_features() -> str:
    """Return the CPU's features. Compiled code may use any of them, so the cache must miss on another CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
