"""Compilers for devices that are not here (`make plan-extras`): where they are, and the topology they get."""

from __future__ import annotations

import math
from pathlib import Path

from harness.aot.protocol import Target
from harness.aot.tpu_slices import slice_for
from harness.config.schema.cluster import KindConfig
from harness.core.errors import UserError

TPU_PREFIX = "TPU "
"""Beginning of the names of TPU chips."""


def compiler_topology(target: Target, kind: KindConfig, devices: int) -> str:
    """Return a topology for `harness.aot.backends`, such as `v5p:8x8x8` or `H100-80G:1x64x8`. Raises
    UserError if the target does not compile for this kind of chips, or no slice has this many."""
    is_tpu = kind.chip.startswith(TPU_PREFIX)
    if is_tpu != (target is Target.tpu):
        right_target = Target.tpu if is_tpu else Target.cuda
        way_out = f"Use --compile {right_target.value}."
        raise UserError(f"target={target.value} cannot compile for {kind.chip}. {way_out}")
    if is_tpu:
        return slice_for(kind.chip.removeprefix(TPU_PREFIX), devices)
    domain = math.gcd(devices, kind.scale_up_domain or 1)
    return f"{kind.chip}:1x{devices // domain}x{domain}"


PLAN_VENV = Path(__file__).parents[3] / ".venv-plan"
"""Folder of the environment, beside the Makefile's `.venv` that it extends."""


def plan_python() -> Path | None:
    """Return the interpreter of the optional environment; None if it was not made to the end."""
    python = PLAN_VENV / "bin" / "python"
    return python if (PLAN_VENV / "ready").is_file() and python.exists() else None
