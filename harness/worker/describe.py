"""Config in, facts out: `python -m harness.worker.describe CONFIG.yaml...` prints one JSON list.

The only process that imports JAX before a launch. It builds nothing on a device: it imports the
models and users' modules, validates what only they can, sizes, counts, and says what is wrong in
one sentence a config: `{"facts": {...}}` or `{"error": "..."}`, in the order given.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import Config
from harness.core.cpu_flags import cpu_env
from harness.core.errors import UserError
from harness.data.open_data import describe_run_data
from harness.models.registry import import_modules
from harness.records.run.config_file import read_config
from harness.records.run.provenance import Facts

if TYPE_CHECKING:
    from harness.models.parameters import ParamSpec


def main(argv: list[str]) -> int:
    os.environ.update(cpu_env(1))
    print(json.dumps([_describe_file(Path(path)) for path in argv]))
    return 0


def _describe_file(path: Path) -> dict[str, Any]:
    try:
        return {"facts": dataclasses.asdict(describe(read_config(path)))}
    except UserError as error:
        return {"error": str(error)}


def describe(config: Config) -> Facts:
    """Everything about a run that can be known without training it. Raises UserError."""
    from harness.models import build
    from harness.models.mechanism_checks import check_mechanisms
    from harness.training.output.profiler import check_profile
    from harness.training.parent_checkpoint import find_parent
    from harness.training.schedule import branch_segments, main_segment
    from harness.training.trainable.trainable_model import make_trainable

    import_modules(config)
    check_profile(config.profile)
    _check_sizes(config.mesh)
    data, mix = describe_run_data(config)
    steps = main_segment(config).last
    branch_segments(config)
    model = build(config, data.vocabulary, data.end_token, data.image)
    check_mechanisms(model.spec)
    trainable_model = make_trainable(config, model)
    _check_mesh(config, trainable_model.stored_specs)
    parent = find_parent(config, model)
    shape = {name: int(value) for name, value in dataclasses.asdict(model.shape).items()}
    return Facts(
        parameters=model.parameters,
        non_embedding=model.non_embedding_parameters,
        embedding=model.embedding_parameters,
        shape=shape,
        flops_per_token=trainable_model.flops_per_token,
        executed_flops_per_token=trainable_model.executed_flops_per_token(_microbatch_size(config)),
        paths={path: list(spec.shape) for path, spec in model.param_specs.items()},
        state_bytes=_state_bytes(config, trainable_model),
        activation_bytes=model.activation_bytes(_microbatch_size(config) * config.data.sequence_length),
        steps=steps,
        tokens_per_step=config.scale.batch * config.data.sequence_length,
        data_fingerprint=data.fingerprint,
        eval_fingerprint=data.eval_fingerprint,
        end_token=data.end_token,
        cache_bytes=model.cache_bytes,
        draws=mix.draws,
        mixes=mix.mixes,
        base=parent,
        trainable=trainable_model.num_trainable if parent else 0,
        active_parameters=model.active_parameters,
        loss_unit=model.loss_unit,
        splits=_parameters_by_mesh_axes(model.param_specs),
    )


def _microbatch_size(config: Config) -> int:
    return config.scale.batch // config.compute.microbatches


def _check_sizes(mesh: MeshConfig) -> None:
    for field in dataclasses.fields(mesh):
        if getattr(mesh, field.name) < 1:
            raise UserError(
                f"mesh.{field.name}={getattr(mesh, field.name)}: give the number of devices, at least 1."
            )


def _check_mesh(config: Config, specs: Any) -> None:
    """The batch and every parameter must divide over the lane, whatever devices it will get."""
    from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
    from harness.parallel.sharding.mesh import abstract_mesh

    lane = abstract_mesh(config.mesh)
    if config.scale.batch % config.compute.microbatches:
        raise UserError(
            f"compute.microbatches={config.compute.microbatches} does not divide scale.batch="
            f"{config.scale.batch}: choose a divisor of it"
        )
    batch_sharding(lane, config.scale.batch // config.compute.microbatches)
    param_shardings(lane, specs)


def _parameters_by_mesh_axes(specs: Mapping[str, ParamSpec]) -> dict[str, int]:
    """Parameters by the axes of a mesh that split them."""
    from harness.parallel.sharding.axis_rules import LOGICAL_AXIS_RULES

    sizes: dict[str, int] = {}
    for spec in specs.values():
        key = " ".join(
            sorted({str(LOGICAL_AXIS_RULES[axis]) for axis in spec.axes if axis in LOGICAL_AXIS_RULES})
        )
        sizes[key] = sizes.get(key, 0) + spec.size
    return sizes


def _state_bytes(config: Config, trainable_model: Any) -> int:
    """Parameters, the gradients of those that learn, and what the optimizer keeps of each of these."""
    import jax
    import jax.numpy as jnp

    from harness.training.trainable.trainable_model import split_trainable

    params = {
        path: jax.ShapeDtypeStruct(spec.shape, jnp.float32) for path, spec in trainable_model.stored.items()
    }
    trainable, _ = split_trainable(params, trainable_model.learning)
    optimizer_state = jax.eval_shape(trainable_model.optimizer(config.optimizer).init, trainable)
    return sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves([params, trainable, optimizer_state])
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
