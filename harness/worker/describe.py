"""Facts of runs from their configs: `python -m harness.worker.describe CONFIG.yaml...` prints one JSON list.

A launch forks it from its server. It builds nothing on a device: it imports the models and the users'
modules, validates what needs them, and counts sizes and FLOPs. Each config gets, in order, `{"facts": {...}}`
or `{"error": "one sentence"}`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.core.jax_setup.cpu_flags import cpu_env
from harness.core.jax_setup.jax_range import check_jax_version
from harness.core.jax_setup.jax_variables import drop_jax_options
from harness.data.open_data import describe_run_data
from harness.records.run.config_file import read_config
from harness.records.run.provenance import Facts, MetricFacts, SetFacts, SourceFacts

if TYPE_CHECKING:
    from harness.data.text.describe_text import DataFacts
    from harness.models import Model
    from harness.models.families.model_family import ModelFamily
    from harness.models.parameters import ParamSpec
    from harness.training.trainable.trainable_model import TrainableModel


def main(argv: list[str], env: Mapping[str, str] | None = None) -> int:
    """Print the facts or the error of each config file as one JSON list. Return 0. `env` is set first."""
    drop_jax_options()
    os.environ.update(cpu_env(1) | dict(env or {}))
    print(json.dumps([_answer(Path(path)) for path in argv]))
    return 0


def _answer(path: Path) -> dict[str, Any]:
    try:
        check_jax_version()
        _use_cpu()
        return {"facts": dataclasses.asdict(describe(read_config(path)))}
    except UserError as error:
        return {"error": str(error)}


def _use_cpu() -> None:
    """Take the CPU as the only device, also where a fork server has imported JAX in another environment."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1)


def describe(config: Config) -> Facts:
    """Return everything that can be known about a run without training it. Raises UserError."""
    from harness.models.kernels import describe_kernels
    from harness.models.registry import import_modules
    from harness.training.parent_checkpoint import find_parent
    from harness.training.schedule import ends_decayed
    from harness.training.trainable.trainable_model import make_trainable

    import_modules(config)
    steps = _check_course(config)
    data, mix = describe_run_data(config)
    family, model = _build_model(config, data)
    trainable_model = make_trainable(config, model)
    _check_mesh(config, trainable_model.stored_specs)
    metrics = _check_programs(config, model)
    parent = find_parent(config, model)
    sequences = config.scale.batch // config.compute.microbatches
    shape = {name: int(value) for name, value in dataclasses.asdict(model.shape).items()}
    state = _state_bytes(config, trainable_model)
    return Facts(
        parameters=model.parameters,
        non_embedding=model.non_embedding_parameters,
        embedding=model.embedding_parameters,
        shape=shape,
        flops_per_token=trainable_model.flops_per_token,
        executed_flops_per_token=trainable_model.executed_flops_per_token(sequences),
        paths={path: list(spec.shape) for path, spec in model.param_specs.items()},
        state_bytes=sum(state),
        weight_bytes=state.weights,
        gradient_bytes=state.gradients,
        activation_bytes=model.activation_bytes(sequences * config.data.sequence_length),
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
        loss_unit=f"{family.loss_unit} (upper bound)" if model.loss_is_bound else family.loss_unit,
        splits=_parameters_by_mesh_axes(model.stored_specs),
        fp8_parameters=model.fp8_parameters,
        saved_scores=model.saved_scores,
        scanned=model.stacking.repeats > 0,
        divisors=_axis_divisors(config, trainable_model.stored_specs, splits_time=family.splits_sequences),
        rows=model.table_rows,
        row=[*data.row] if data.row is not None else [],
        row_dtype=data.dtype,
        tokenizer=data.tokenizer,
        kernels=describe_kernels(model.spec.kernels),
        ends_decayed=ends_decayed(config.schedule),
        metrics=metrics,
        sets={name: SetFacts(**dataclasses.asdict(summary)) for name, summary in data.sets.items()},
        sources={name: SourceFacts(**dataclasses.asdict(facts)) for name, facts in data.sources.items()},
    )


def _build_model(config: Config, data: DataFacts) -> tuple[ModelFamily, Model]:
    """Return the family and the model of a run. Raises UserError for a part that does not keep its word."""
    from harness.models import build
    from harness.models.families.model_family import configured_family

    family = configured_family(config).entry
    model = build(config, data.vocabulary, data.end_token, data.image, data.row, data.dtype)
    family.check(model)
    return family, model


def _check_course(config: Config) -> int:
    """Return the number of steps of the run. Raises UserError for a profile or a schedule that does not fit
    it."""
    from harness.training.output.profiler import check_profile
    from harness.training.schedule import branch_segments, check_course, main_segment

    check_profile(config.profile)
    steps = main_segment(config).last
    branch_segments(config)
    check_course(config)
    return steps


def _check_programs(config: Config, model: Model) -> dict[str, MetricFacts]:
    """Return the facts of the run's metrics by name. Raises UserError for an optimizer, a part of the model
    or a metric that cannot be traced over the devices of the run."""
    from harness.models.vetting.mesh_types import check_on_mesh
    from harness.parallel.sharding.mesh import abstract_mesh
    from harness.training.programs.metric_columns import check_metrics
    from harness.training.programs.optimizer_check import check_optimizer
    from harness.training.programs.program_specs import ProgramSpecs, batch_parts

    specs = ProgramSpecs(config, model, abstract_mesh(config.mesh))
    check_optimizer(specs)
    check_on_mesh(model, specs.mesh.abstract_mesh, batch_parts(config)[1])
    metrics = check_metrics(specs)
    return {m.name: MetricFacts(m.entry.at.value, m.entry.unit, m.entry.better) for m in metrics}


def _check_mesh(config: Config, specs: Mapping[str, ParamSpec]) -> None:
    """Raise UserError unless the batch and every parameter divide over the mesh, on any devices."""
    from harness.parallel.sharding.axis_rules import batch_sharding, param_shardings
    from harness.parallel.sharding.mesh import abstract_mesh

    mesh = abstract_mesh(config.mesh)
    if config.scale.batch % config.compute.microbatches:
        raise UserError(
            f"compute.microbatches={config.compute.microbatches} does not divide scale.batch="
            f"{config.scale.batch}. Choose a divisor."
        )
    batch_sharding(mesh, config.scale.batch // config.compute.microbatches)
    param_shardings(mesh, specs)


def _parameters_by_mesh_axes(specs: Mapping[str, ParamSpec]) -> dict[str, int]:
    """Return the number of parameters by the mesh axes that split them."""
    from harness.parallel.sharding.axis_rules import LOGICAL_AXIS_RULES

    sizes: dict[str, int] = {}
    for spec in specs.values():
        mesh_axes = {str(LOGICAL_AXIS_RULES[axis]) for axis in spec.axes if axis in LOGICAL_AXIS_RULES}
        key = " ".join(sorted(mesh_axes))
        sizes[key] = sizes.get(key, 0) + spec.size
    return sizes


def _axis_divisors(config: Config, specs: Mapping[str, ParamSpec], *, splits_time: bool) -> dict[str, int]:
    """Return the number that the size of each mesh axis must divide, besides the batch. An axis that splits
    nothing of this model has none."""
    from harness.parallel.sharding.axis_rules import LOGICAL_AXIS_RULES

    divisors = {"context": config.data.sequence_length} if splits_time else {}
    sizes = [pair for spec in specs.values() for pair in zip(spec.axes, spec.shape, strict=True)]
    for axis, size in sizes:
        if isinstance(mesh_axis := LOGICAL_AXIS_RULES.get(axis or ""), str):
            divisors[mesh_axis] = math.gcd(divisors.get(mesh_axis, 0), size)
    if any(path.startswith("layers.") for path in specs):
        divisors.pop("pipeline", None)  # a layer that is not stacked is in no stage
    return divisors


class _StateBytes(NamedTuple):
    """Bytes of the training state by part."""

    weights: int
    gradients: int
    optimizer: int


def _state_bytes(config: Config, trainable_model: TrainableModel) -> _StateBytes:
    """Return the bytes of all parameters, and of gradients and optimizer state of the trainable ones."""
    import jax

    from harness.training.trainable.trainable_model import split_trainable

    specs = trainable_model.stored_specs.items()
    dtypes = trainable_model.dtypes
    params = {path: jax.ShapeDtypeStruct(spec.shape, dtypes[path]) for path, spec in specs}
    trainable, _ = split_trainable(params, trainable_model.trainable_paths)
    optimizer_state = jax.eval_shape(trainable_model.build_optimizer(config.optimizer).init, trainable)
    gradients = _num_bytes(trainable)
    if config.compute.microbatches > 1:  # which are summed in float32
        gradients = sum(4 * math.prod(leaf.shape) for leaf in trainable.values())
    return _StateBytes(_num_bytes(params), gradients, _num_bytes(optimizer_state))


def _num_bytes(tree: Any) -> int:
    import jax

    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
