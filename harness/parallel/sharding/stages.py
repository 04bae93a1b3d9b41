"""Per-device maps inside the stages of a pipeline (`models.execution.pipeline`). These are one function,
which `jax.vmap` maps over an axis that the mesh axis `pipeline` splits.

JAX can batch a `shard_map`, but then what is inside has one explicit axis more, and many operations ask for
its sharding. Here the stage axis becomes manual too: each device works on the data of its own stage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, P
from jax.custom_batching import custom_vmap

from harness.parallel.sharding.axis_rules import LOGICAL_AXIS_RULES

STAGE_AXIS = "pipeline"
assert LOGICAL_AXIS_RULES["layers"] == STAGE_AXIS


def has_stages() -> bool:
    """Return whether the mesh in context splits the layers."""
    return STAGE_AXIS in jax.sharding.get_abstract_mesh().axis_names


def is_in_stage(in_specs: Any) -> bool:
    """Return whether arrays with these specs are those of one stage: all others are split over the stages."""
    specs = jax.tree.leaves(in_specs, is_leaf=lambda spec: isinstance(spec, P))
    return has_stages() and not any(_names(spec) & {STAGE_AXIS} for spec in specs)


def per_device_of_stages(function: Callable, in_specs: Any, out_specs: Any, check_vma: bool) -> Callable:
    """Map `function` over the data of each device in a function that is mapped over the stages. Its gradient
    is that of the mapped one: a single stage has none."""

    @custom_vmap
    def on_one_stage(*arrays: Array) -> Any:
        specs = {"in_specs": in_specs, "out_specs": out_specs}
        return jax.shard_map(function, **specs, check_vma=check_vma)(*arrays)

    @on_one_stage.def_vmap
    def on_all_stages(axis_size: int, is_staged: Any, *arrays: Array) -> tuple[Any, Any]:
        specs = (in_specs,) * len(arrays) if isinstance(in_specs, P) else in_specs
        by_stage = tuple(
            _add_stages(spec) if has_stage else spec for spec, has_stage in zip(specs, is_staged, strict=True)
        )

        def on_device(*arrays: Array) -> Any:
            stage_arrays = (x[0] if has_stage else x for x, has_stage in zip(arrays, is_staged, strict=True))
            return jax.tree.map(lambda output: output[None], function(*stage_arrays))

        split = jax.tree.map(_add_stages, out_specs, is_leaf=lambda spec: isinstance(spec, P))
        specs = {"in_specs": by_stage, "out_specs": split}
        outputs = jax.shard_map(on_device, **specs, check_vma=check_vma)(*arrays)
        return outputs, jax.tree.map(lambda output: True, outputs)

    return on_one_stage


def _add_stages(spec: P) -> P:
    return P(STAGE_AXIS, *spec)


def _names(spec: P) -> set[str]:
    entries = [(entry,) if isinstance(entry, str) else entry for entry in spec if entry]
    return {name for entry in entries for name in entry}
