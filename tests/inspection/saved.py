"""Checkpoints made by hand, without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from harness.config.schema.run import CheckpointConfig
from harness.records.paths import RunDir
from harness.records.run import metrics
from harness.records.run.checkpoint_manifest import Manifest, read_manifest
from harness.records.run.metrics import read_curve
from harness.records.run.provenance import read_provenance
from harness.training.output.checkpointer import Checkpointer, restore
from harness.training.step import TrainState
from tests.training.runs import lane, prepare


def at_start(folder: Path, *overrides: str) -> RunDir:
    """A run with one checkpoint, of the state before its first step."""
    run = prepare(folder, *overrides)
    provenance = read_provenance(run)
    assert provenance
    save(run, Manifest(0, provenance.identity, "", "", 0.0, {}), lane(run).init_state())
    return run


def change_weights(run: RunDir, step: int, path: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Save a checkpoint anew with one parameter changed."""
    manifest = read_manifest(run, step)
    assert manifest
    state = restore(run, step, lane(run).abstract_state())
    params = state.params | {path: change(np.asarray(state.params[path]))}
    save(run, manifest, TrainState(params, state.optimizer))


def change_rows(run: RunDir, kind: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Seal a curve anew with other rows."""
    rows = change(read_curve(run, kind))
    (part,) = metrics.list_parts(run, kind)
    part.path.unlink()
    metrics.write_part(run, kind, part.start, part.end, rows.to_dicts())


def save(run: RunDir, manifest: Manifest, state: TrainState) -> None:
    state = jax.tree.map(jnp.asarray, state)  # as training has them: with a sharding
    saver = Checkpointer(run, CheckpointConfig(keep_last=100))
    saver.save(state, manifest)
    saver.wait()
