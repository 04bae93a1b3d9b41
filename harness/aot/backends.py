"""Who answers for which target: the environment that its process needs, and the function that looks."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.aot.protocol import Seen, Target
from harness.core.cpu_flags import cpu_profile
from harness.core.errors import UserError, nearest

if TYPE_CHECKING:
    from harness.aot.train_step import Maker

    Look = Callable[[Maker, str], Seen]
    """(what makes a config's step over a mesh, topology) to what was seen of it. Raises UserError, or
    whatever the compiler raises."""


@dataclass(frozen=True)
class Compiler:
    environment: Callable[[int], dict[str, str]]
    """Variables for the most devices that are asked for, set before JAX is imported."""
    module: str
    look: str

    def load(self) -> Look:
        return getattr(importlib.import_module(self.module), self.look)


PLAIN = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
"""What is computed on the way is computed here; no flag that a compiler of another version may not know."""

NO_TPU = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
"""Nobody is asked which TPU this machine is part of, and several such processes may run."""

COMPILERS = {
    Target.abstract: Compiler(lambda _: cpu_profile(1), "harness.aot.abstract_mesh", "look"),
    Target.cpu: Compiler(cpu_profile, "harness.aot.cpu", "look"),
    Target.cuda: Compiler(lambda _: PLAIN, "harness.aot.offline_devices", "look_cuda"),
    Target.tpu: Compiler(lambda _: PLAIN | NO_TPU, "harness.aot.offline_devices", "look_tpu"),
}


def compiler_of(target: Target) -> Compiler:
    """Raises UserError for a target that nobody here answers for."""
    if target not in COMPILERS:
        raise UserError(
            f"target={target.value}: nothing here compiles for it;"
            f" {nearest(target.value, [each.value for each in COMPILERS])}"
        )
    return COMPILERS[target]
