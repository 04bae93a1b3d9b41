"""Backends by target: the environment variables that a process needs, and its analysis function."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.aot.protocol import CompileStats, Target
from harness.core.cpu_flags import cpu_env
from harness.core.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from harness.aot.train_step import StepFactory

    Analyze = Callable[[StepFactory, str], CompileStats]
    """(step factory of a config, topology) -> stats. Raises UserError, or the compiler's own exceptions."""


@dataclass(frozen=True)
class Backend:
    """The analysis function of one target, imported only after its environment is set."""

    environment: Callable[[int], dict[str, str]]
    """Environment variables for the largest device count, to set before importing JAX."""
    module: str
    function: str

    def load(self) -> Analyze:
        """Import and return the analysis function. This imports JAX."""
        return getattr(importlib.import_module(self.module), self.function)


CPU_ENV = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
"""Constants are computed on this CPU. XLA_FLAGS is empty: another version's compiler may reject our flags."""

OFFLINE_TPU_ENV = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
"""Skip the metadata query for this machine's TPU, and let several such processes run at once."""

BACKENDS = {
    Target.abstract: Backend(lambda _: cpu_env(1), "harness.aot.abstract_mesh", "analyze_abstract"),
    Target.cpu: Backend(cpu_env, "harness.aot.cpu", "analyze_cpu"),
    Target.cuda: Backend(lambda _: CPU_ENV, "harness.aot.offline_devices", "analyze_cuda"),
    Target.tpu: Backend(lambda _: CPU_ENV | OFFLINE_TPU_ENV, "harness.aot.offline_devices", "analyze_tpu"),
}


def backend_for(target: Target) -> Backend:
    """Return the backend of a target. Raises UserError if it has none."""
    if target not in BACKENDS:
        raise UserError(
            f"target={target.value} has no compiler backend;"
            f" {did_you_mean(target.value, [known_target.value for known_target in BACKENDS])}"
        )
    return BACKENDS[target]
