"""Environment variables of the shell that would change what JAX computes or what its compiler builds.

Options of JAX (`JAX_ENABLE_X64`, `JAX_DEFAULT_MATMUL_PRECISION`, ...) are not taken from the shell: a run
sets its own, so that another shell repeats it. Variables of compilers and their libraries are taken; they are
part of the key of a compiled program and of the record of a run. This file imports no JAX.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_JAX = "JAX_"
_TAKEN = (
    "JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES", "JAX_PJRT_CLIENT_CREATE_OPTIONS", "JAX_TRACEBACK_FILTERING",
    "JAX_LOG", "JAX_DEBUG_LOG_MODULES", "JAX_DUMP_IR", "JAX_COORDINATOR", "JAX_PROCESS_ID",
    "JAX_LOCAL_DEVICE_IDS", "JAX_MOCK",
)  # fmt: skip
"""Prefixes of options that choose devices or write logs, and so change no number."""
_COMPILER = (
    "XLA_", "LIBTPU_", "TF_", "CUBLAS", "CUDNN_", "NCCL_", "NVIDIA_TF32", "DNNL_", "ONEDNN_", "PJRT_",
)  # fmt: skip
"""Prefixes of variables that compilers and their libraries read."""
POOL_VARIABLE = "PJRT_NPROC"
"""Variable with the number of threads on which XLA computes on CPU; one for each core if it is not set. A
number does not depend on it."""
_NO_NUMBERS = ("XLA_FLAGS", "XLA_PYTHON_CLIENT_", POOL_VARIABLE)
"""Prefixes that are recorded elsewhere, or only say where memory and threads come from."""


def drop_jax_options(environ: MutableMapping[str, str] = os.environ) -> list[str]:
    """Remove the options of JAX that could change a number, before JAX is imported. Return NAME=VALUE."""
    names = [name for name in environ if name.startswith(_JAX) and not name.startswith(_TAKEN)]
    return [f"{name}={environ.pop(name)}" for name in sorted(names)]


def compiler_variables() -> dict[str, str]:
    """Return the variables of this process that a compiled program may depend on, besides XLA_FLAGS."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_COMPILER) and not name.startswith(_NO_NUMBERS)
    }
