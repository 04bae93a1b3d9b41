"""Tiny real runs for the tests of training: prepared as the launcher would, trained in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import polars as pl

from harness.config.compose import compose
from harness.data import Reader, open_data
from harness.models import build
from harness.models.parameters import init_param
from harness.records.paths import RunDir
from harness.records.run.config_file import read_config
from harness.records.run.metrics import read_curve
from harness.records.run.provenance import read_provenance
from harness.records.run.status import State
from harness.training.prepared_run import PreparedRun
from harness.training.programs.run_programs import RunPrograms, make_run_programs
from harness.training.run import train_run
from harness.training.trainable.trainable_model import TrainableModel
from tests.prepared import prepare_run

TINY = (
    "model.head_width=16",
    "data.tokenizer=byte",
    "data.sequence_length=32",
    "data.holdout=0.3",
    "evaluation.tokens=256",
    "evaluation.points=2",
    "scale.parameters=12000",
    "scale.batch=8",
    "scale.tokens=7680",
    "checkpoint.every=8",
    "checkpoint.keep_last=10",
)
"""30 steps of 8 sequences of 32 bytes; the branch leaves at step 13 and ends at 15."""

SENTENCES = (
    "the quick brown fox jumps",
    "a lazy dog sleeps all day",
    "what follows is a longer line of text",
)


def write_text(folder: Path) -> Path:
    """A corpus of 120 short documents."""
    path = folder / "text.txt"
    documents = [" ".join(SENTENCES[(i + j) % 3] for j in range(3 + i % 4)) + f" {i}" for i in range(120)]
    path.write_text("\n<|endoftext|>\n".join(documents))
    return path


def prepare(folder: Path, *overrides: str) -> RunDir:
    """A run directory as the launcher leaves it for a worker."""
    text = folder / "text.txt"
    if not text.exists():
        write_text(folder)
    config = compose(["data=own", f"data.sources.own.path={text}", *TINY, *overrides])
    return prepare_run(folder / "sweep", config)


def assignment(run: RunDir) -> PreparedRun:
    provenance = read_provenance(run)
    assert provenance
    return PreparedRun(run, read_config(run.config), provenance)


def lane(run: RunDir, first_device: int = 0, reader: Reader | None = None) -> RunPrograms:
    """A lane on as many devices as the run's mesh has, from the given one on."""
    config = read_config(run.config)
    corpus = open_data(config.data)
    count = config.mesh.devices
    devices = jax.devices()[first_device : first_device + count]
    reader = reader or Reader(corpus.sampler(config.scale.batch, config.data_seed))
    heldout = corpus.heldout(config.evaluation.tokens)
    facts = assignment(run).provenance.facts
    return make_run_programs(config, build(config, facts.shape["vocabulary"]), devices, reader.get, heldout)


def train(run: RunDir, first_device: int = 0, stop: threading.Event | None = None) -> State:
    return train_run(assignment(run), lane(run, first_device), stop or threading.Event())


def init_params(model: TrainableModel, seed: int) -> dict[str, np.ndarray]:
    """Parameters of step 0 by stored path on the host, each layer drawn whole."""
    arrays = {}
    for path, spec in model.stored_specs.items():
        stacked = spec.axes[:1] == ("layers",)
        layer = replace(spec, shape=spec.shape[1:], axes=spec.axes[1:]) if stacked else spec
        layers = [init_param(seed, name, layer) for name in model.canonical_paths[path]]
        arrays[path] = np.stack(layers) if stacked else layers[0]
    return arrays


def stopping_at(step: int, get_batch: Callable, stop: threading.Event) -> Callable:
    """A reader that asks the lane to leave once it reads the batch of this step."""

    def get(t: int):
        if t == step:
            stop.set()
        return get_batch(t)

    return get


def curve(run: RunDir, kind: str = "steps") -> pl.DataFrame:
    """A run's rows without the wall clock."""
    return read_curve(run, kind).drop("device_seconds", "input_seconds", strict=False)
