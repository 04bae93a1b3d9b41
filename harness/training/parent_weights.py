"""Weights of a checkpoint: in the layout of a run that starts from it, or on the host.

Only weights are read, not the optimizer's moments: a start does not need them, and they are twice as large.
An optimizer whose judged parameters are others than the trained ones is the exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.models import Model
from harness.parallel.processes.agreement import broadcast_from_primary
from harness.parallel.sharding.mesh import lane_mesh
from harness.records.paths import RunDir
from harness.records.run.find_checkpoint import find_checkpoint
from harness.training.optimizers.rounding.stored_dtypes import widen
from harness.training.output.checkpointer import restore
from harness.training.parent_checkpoint import rebuild_checkpoint_model
from harness.training.programs.program_specs import ProgramSpecs
from harness.training.programs.run_programs import RunPrograms
from harness.training.step import TrainState
from harness.training.trainable.trainable_model import Params


def load_parent_weights(base: Mapping[str, Any], programs: RunPrograms) -> Params:
    """Load the weights that `find_parent` found, by the run's stored paths and on its devices: each device
    reads its own shards. Embedding and head get as many rows that are no token as the run has, and matrices
    the dtype that it keeps them in; a note says where that rounds.

    Raises UserError if the weights changed or are damaged."""
    where = f"{base['run']}@{base['step']}"
    if fault := broadcast_from_primary(lambda: _find_fault(where)):
        raise UserError(fault)
    parent = find_checkpoint(where, trust_memory=True)
    if hash_json(parent.manifest.files) != base["checksum"]:
        raise UserError(
            f"{base['run']}: its checkpoint at step {base['step']} changed after this run was planned. "
            "Give the sweep's command again."
        )
    saved_model = rebuild_checkpoint_model(parent)
    model = saved_model.with_vocabulary_multiple(programs.model.spec.config.vocabulary_multiple)
    specs = ProgramSpecs(replace(parent.config, mesh=programs.config.mesh), model, programs.mesh)
    resize = model.param_specs != saved_model.param_specs
    weights = _restore_weights(parent.run, parent.step, specs, resize)
    return _in_own_dtypes(_change_stacking(weights, specs, programs.model), programs)


def _in_own_dtypes(weights: Params, programs: RunPrograms) -> Params:
    """Return the weights in the dtypes that the run keeps them in: the nearest values, or the same ones."""
    dtypes = programs.trainable_model.dtypes
    if any(jnp.promote_types(array.dtype, dtypes[path]) != dtypes[path] for path, array in weights.items()):
        programs.note(
            "the parent's weights are float32 and were rounded to the nearest bfloat16, in which this run "
            "keeps its matrices (compute.parameter_dtype)"
        )
    return {path: array.astype(dtypes[path]) for path, array in weights.items()}


def _find_fault(where: str) -> str | None:
    """Return why a checkpoint cannot be used, after reading all of it; None if it can."""
    try:
        find_checkpoint(where)
    except UserError as error:
        return str(error)
    return None


def load_weights(run: RunDir, step: int, config: Config, model: Model) -> dict[str, np.ndarray]:
    """Load the weights of a run at a step: float32 on the host, by the model's stored paths. They are
    restored on one device, whatever mesh trained them, which is exact. LoRA factors are merged in."""
    config, mesh = replace(config, mesh=MeshConfig()), lane_mesh(jax.local_devices()[:1], MeshConfig())
    specs = ProgramSpecs(replace(config, mesh=MeshConfig()), model, mesh)
    return jax.device_get(widen(_restore_weights(run, step, specs)))


def _restore_weights(run: RunDir, step: int, specs: ProgramSpecs, resize: bool = False) -> Params:
    """Restore the weights that a model computes with, by its stored paths, with `resize` as `restore`."""
    absolute_run = RunDir(run.path.resolve())  # Orbax takes no relative path
    params = _restore_judged(absolute_run, step, specs, resize)
    trainable = specs.trainable_model
    if not trainable.lora_factors:
        return params
    shardings = {path: specs.param_shardings[path] for path in trainable.model.stored_specs}
    with specs.mesh_context():
        return jax.jit(trainable.merged_params, out_shardings=shardings)(params)


def _restore_judged(run: RunDir, step: int, specs: ProgramSpecs, resize: bool) -> Params:
    """Restore the parameters that a run is judged by. Only where its optimizer computes them from its state
    is that read too."""
    if not specs.optimizer.judges_others:
        moments = jax.tree.map(lambda _: ..., specs.state.optimizer)  # Orbax leaves these out
        return restore(run, step, TrainState(specs.state.params, moments), resize).params
    state = restore(run, step, specs.state, resize)
    with specs.mesh_context():
        return jax.jit(specs.judged_params, out_shardings=dict(specs.param_shardings))(state)


def _change_stacking(params: Params, specs: ProgramSpecs, model: Model) -> Params:
    """Stack or unstack layers on the devices, as the stored paths of `model` want it."""
    source, target = specs.model.stacking, model.stacking
    if source == target:
        return params
    paths = {stored: source.canonical_paths(stored) for stored in params}
    places = {path: (stored, layer) for stored in paths for layer, path in enumerate(paths[stored])}

    def layer_of(path: str) -> jax.Array:
        stored, layer = places[path]
        return _take_layer(params[stored], layer) if source.is_stacked(stored) else params[stored]

    with specs.mesh_context():
        layers = {path: [*map(layer_of, target.canonical_paths(path))] for path in model.stored_specs}
        return {
            path: jnp.stack(parts) if target.is_stacked(path) else parts[0] for path, parts in layers.items()
        }


@jax.jit
def _take_layer(stacked: jax.Array, layer: jax.Array | int) -> jax.Array:
    """Return one layer. Its number is an argument, so that equal shapes are compiled once."""
    return jax.lax.dynamic_index_in_dim(stacked, layer, keepdims=False)
