"""Lowerings of a run's programs, over a mesh without devices, kept by the process that made them."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any, cast

import jax

from harness.core.hashing import hash_json, to_plain
from harness.models.families.abilities import DrawsImages
from harness.training.metrics.metric_registry import MeasuredAt, configured_metrics
from harness.training.programs.compile_cache import LoweredProgram
from harness.training.programs.evaluate import make_evaluate, make_sample
from harness.training.programs.program_specs import ProgramSpecs
from harness.training.schedules.values import constant_values
from harness.training.traces.known_trace import KnownTrace
from harness.training.traces.stub_program import lower_program, lower_stub

MAX_LOWERED = 64
"""Number of lowerings that a process keeps: a few MB each, for the next run of the same variant and scale."""

_lowerings: OrderedDict[tuple[str, str, str], LoweredProgram] = OrderedDict()
_lock = Lock()


def lowered_program(name: str, specs: ProgramSpecs, platform: str) -> LoweredProgram:
    """Return the program `name` (init, step, judged, evaluate or sample) of a run over a mesh without
    devices. A process lowers it at most once. `platform` is the device's, such as cpu."""
    key = _lowering_key(name, specs, platform)
    with _lock:
        if key not in _lowerings:
            _lowerings[key] = LoweredProgram(name, _lower(specs, platform, *_program(name, specs)))
        _lowerings.move_to_end(key)
        while len(_lowerings) > MAX_LOWERED:
            _lowerings.popitem(last=False)
        return _lowerings[key]


def forget_lowering(name: str, specs: ProgramSpecs, platform: str) -> None:
    """Drop a lowering, with which JAX remembers the executable that was compiled or loaded for it."""
    with _lock:
        _lowerings.pop(_lowering_key(name, specs, platform), None)


def _lowering_key(name: str, specs: ProgramSpecs, platform: str) -> tuple[str, str, str]:
    return name, platform, hash_json(program_key(specs))


def _program(name: str, specs: ProgramSpecs) -> tuple[Callable, tuple[Any, ...], tuple[int, ...]]:
    """Return a function, the specs of its arguments, and the positions of those that it may overwrite."""
    match name:
        case "init":
            return specs.optimizer.init, (specs.trainable_params,), ()
        case "step":
            return specs.step, specs.step_arguments, (0,)
        case "judged":
            return specs.judged_params, (specs.state,), ()
        case "evaluate":
            metrics = configured_metrics(specs.config, MeasuredAt.evaluation)
            return make_evaluate(specs.trainable_model, metrics), (specs.params, specs.microbatch), ()
        case "sample":
            return (
                make_sample(cast(DrawsImages, specs.model)),
                (specs.params, specs.microbatch, specs.scalar),
                (),
            )
    raise ValueError(name)


def _lower(
    specs: ProgramSpecs,
    platform: str,
    function: Callable,
    arguments: tuple[Any, ...],
    overwritten: tuple[int, ...],
) -> jax.stages.Lowered:
    with specs.mesh_context():
        return lower_program(function, arguments, overwritten, platform)


def lowered_stub(name: str, specs: ProgramSpecs, trace: KnownTrace, platform: str) -> jax.stages.Lowered:
    """Lower a stub of the program `name`, whose trace is known, to load its executable."""
    _, arguments, overwritten = _program(name, specs)
    results = results_structure(name, specs).unflatten(trace.results(specs.mesh))
    with specs.mesh_context():
        return lower_stub(results, arguments, overwritten, platform)


def results_structure(name: str, specs: ProgramSpecs) -> Any:
    """Return the structure of a program's results, a `PyTreeDef`."""
    match name:
        case "init":
            return jax.tree.structure(specs.state.optimizer)
        case "step":
            return jax.tree.structure((specs.state, 0))
        case "judged":
            return jax.tree.structure(specs.params)
    return jax.tree.structure(0)


def program_key(specs: ProgramSpecs) -> list[Any]:
    """Return what the programs of a run depend on beside code, devices and environment."""
    config, model = specs.config, specs.model
    arguments = {"optimizer.learning_rate", *constant_values(config)}
    optimizer = {k: v for k, v in to_plain(config.optimizer).items() if f"optimizer.{k}" not in arguments}
    loss = {k: v for k, v in to_plain(config.loss).items() if f"loss.{k}" not in arguments}
    finetune = {key: value for key, value in to_plain(config.finetune).items() if key != "parent"}
    sizes = [config.scale.parameters, config.scale.batch, config.data.sequence_length]
    rows = [model.row_shape, model.row_dtype]
    shape = [dataclasses.asdict(model.shape), rows, model.spec.end_token, list(specs.mesh.shape.items())]
    shape += [model.has_empty_places]
    shape += [repr(model.spec), repr(model.compute), to_plain(config.mesh), config.cluster.platform]
    nodes = (config.model, config.compute, loss, config.objective, optimizer, finetune)
    timed, metrics = sorted(config.schedule.values), to_plain(config.metrics)
    return [*map(to_plain, nodes), sizes, shape, sorted(arguments), timed, metrics, config.imports]
