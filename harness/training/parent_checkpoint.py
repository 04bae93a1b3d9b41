"""The checkpoint that a fine-tuned run starts from: found, checked against the run, and read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from harness.config.pair_check import describe as described
from harness.config.run_identity import difference
from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import Config, Method
from harness.core.errors import UserError
from harness.core.hashing import digest, within
from harness.data.text.tokenizers import load
from harness.models import Model, build, image_of
from harness.models.mup import relative_width
from harness.records.paths import RunDir
from harness.records.run.checkpoint_manifest import Manifest
from harness.records.run.find_checkpoint import Checkpoint, Named, find_checkpoint
from harness.records.run.provenance import Facts
from harness.records.run.status import State, read_status
from harness.training.output.checkpointer import restore
from harness.training.programs.run_programs import open_lane


def base_of(config: Config, model: Model) -> dict[str, Any] | None:
    """What `Facts.base` says of the checkpoint that a run starts from; None where it is drawn.

    Raises UserError where there is no such checkpoint, or where it does not fit the model and its tokens.
    """
    if config.finetune.method is Method.none:
        return None
    parent = _parent(config)
    _check_tokenizer(config, parent)
    _check_shapes(config, model, parent)
    _check_function(config, model, parent)
    return {
        "run": str(parent.run.path.resolve()),
        "name": f"{parent.sweep.path.name}/{parent.name}",
        "step": parent.step,
        "identity": parent.provenance.identity,
        "checksum": _checksum(parent.manifest),
    }


def base_weights(base: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The weights that `base_of` found, by canonical path. Raises UserError if they are gone or changed."""
    parent = find_checkpoint(f"{base['run']}@{base['step']}")
    if _checksum(parent.manifest) != base["checksum"]:
        raise UserError(
            f"{base['run']}: its checkpoint at step {base['step']} changed since this run was planned; "
            "give the command of the sweep again"
        )
    model = model_of(parent)
    return model.unstack(saved_weights(parent.run, parent.step, parent.config, model))


def saved_weights(run: RunDir, step: int, config: Config, model: Model) -> dict[str, np.ndarray]:
    """The weights that a run computed with at a step, float32 on the host, by the model's stored paths.

    Restored on one device, whatever the run was trained on, which is exact; factors of LoRA are merged in.
    Each of several processes reads them for itself.
    """
    here = RunDir(run.path.resolve())  # Orbax takes no relative path
    lane = open_lane(replace(config, mesh=MeshConfig()), model, jax.local_devices()[:1], _no_batch, {})
    params = jax.device_get(restore(here, step, lane.abstract_state()).params)
    return jax.device_get(jax.jit(lane.learner.merged)(params)) if lane.learner.factors else params


def _parent(config: Config) -> Checkpoint:
    """A run that is over, or one of its checkpoints by step."""
    where = config.finetune.parent
    if not where:
        raise UserError(
            f"finetune.method={config.finetune.method.value} starts from a checkpoint, but finetune.parent "
            "names none: give the directory of a run, RUN or RUN@STEP"
        )
    try:
        parent = find_checkpoint(where)
    except UserError as error:
        raise UserError(f"finetune.parent={where}: {error}; the parent is trained first") from error
    state = read_status(parent.run).state
    if Path(where) == parent.run.path and state is not State.finished:
        raise UserError(
            f"finetune.parent={where} is {state.value}, not finished: let it finish, or name one of its "
            f"checkpoints, such as {where}@{parent.step}"
        )
    return parent


def _check_tokenizer(config: Config, parent: Checkpoint) -> None:
    ours, theirs = config.data.tokenizer, parent.config.data.tokenizer
    codec, known = load(ours), parent.provenance.facts.shape["vocabulary"]
    if codec.vocabulary != known or (ours != theirs and codec.fingerprint != load(theirs).fingerprint):
        raise UserError(
            f"data.tokenizer={ours} ({codec.vocabulary} tokens) is not that of finetune.parent="
            f"{config.finetune.parent}, which is {theirs} ({known} tokens): set data.tokenizer={theirs}"
        )


def _check_shapes(config: Config, model: Model, parent: Checkpoint) -> None:
    """Every parameter of the one is there in the other, with its shape."""
    ours = {path: list(spec.shape) for path, spec in model.specs.items()}
    theirs = parent.provenance.facts.paths
    differing = [path for path in [*ours, *theirs] if ours.get(path) != theirs.get(path)]
    if not differing:
        return
    path = differing[0]
    keys = difference(parent.config, config)
    sizes = ("model", "scale.parameters", "data.sequence_length")
    found = {key: pair for key, pair in keys.items() if within(key, [*sizes])}
    because = f" (the parent's config and this one differ in {described(found)})" if found else ""
    raise UserError(
        f"finetune.parent={config.finetune.parent} is of another architecture: {path} is "
        f"{theirs.get(path, 'absent')} there and {ours.get(path, 'absent')} here{because}; give it the "
        "parent's shape"
    )


SIZES = ("model.match", "model.width", "model.layers", "model.heads", "model.ffn", "model.base_width")
"""Keys that shapes speak of, and learning rates; of the last one the ratio to the width matters."""


def _check_function(config: Config, model: Model, parent: Checkpoint) -> None:
    """What else the parent computes with is the same, or a declared change."""
    free = [*SIZES, *config.variant.touches]
    found = {
        key: pair
        for key, pair in difference(parent.config, config).items()
        if within(key, ["model"]) and not within(key, free)
    }
    built = model_of(parent)
    widths = [relative_width(each.blueprint.config, each.shape.width) for each in (built, model)]
    if widths[0] != widths[1]:
        found["model.base_width"] = (parent.config.model.base_width, config.model.base_width)
    if found:
        raise UserError(
            f"finetune.parent={config.finetune.parent} computes otherwise: its config and this one differ in "
            f"{described(found)}; make it equal (or, but for base_width, declare it in variant.touches)"
        )


def model_of(parent: Checkpoint | Named) -> Model:
    """The model of a run. Raises UserError where this code no longer builds what was trained."""
    facts = parent.provenance.facts
    model = rebuilt(parent.config, facts)
    built = {path: list(spec.shape) for path, spec in model.specs.items()}
    if built != facts.paths:
        path = next(path for path in [*facts.paths, *built] if built.get(path) != facts.paths.get(path))
        raise UserError(
            f"{parent.run.path}: {path} was trained with shape {facts.paths.get(path)}, but this "
            f"code makes it {built.get(path)}: use the code with which the run was trained"
        )
    return model


def rebuilt(config: Config, facts: Facts) -> Model:
    """The model of a run that was described."""
    return build(config, facts.shape["vocabulary"], facts.end_token, image_of(facts.shape))


def _checksum(manifest: Manifest) -> str:
    """Of the content of all files of a checkpoint."""
    return digest(manifest.files)


def _no_batch(t: int) -> Any:
    raise LookupError(f"batch {t}: a finished run reads none")
