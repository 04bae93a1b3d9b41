"""A run of images learns, leaves samples, and is bitwise the same after a stop; distances by closed form."""

import dataclasses
import threading
from typing import cast

import numpy as np
import pytest

from harness.cli import main
from harness.config.compose import compose
from harness.core.atomic_files import read_json
from harness.core.errors import UserError
from harness.data.images.image_corpus import ImageCorpus
from harness.inspection.diff.diff_checkpoints import diff
from harness.inspection.export_hf import export
from harness.inspection.sample_images import sample_images
from harness.inspection.sample_text import sample
from harness.models import build, image_size
from harness.records.run.config_file import read_config
from harness.records.run.metrics import read_curve
from harness.records.run.sample_quality import read_sample_quality
from harness.records.run.status import State
from harness.training.output.image_samples import frechet_distance
from harness.training.programs.run_programs import make_run_programs
from harness.training.run import train_run
from tests.core.test_png import read
from tests.prepared import prepare_run
from tests.training.runs import assignment, curve, stopping_at

TINY = (
    "model=dit",
    "data=digits",
    "model.head_width=8",
    "model.patch=7",
    "data.sequence_length=16",
    "evaluation.tokens=1024",
    "evaluation.points=2",
    "scale.parameters=5000",
    "scale.batch=16",
    "scale.tokens=7680",
    "checkpoint.every=10",
)
"""30 steps of 16 digits in 16 patches."""


def prepare(folder, *overrides):
    return prepare_run(folder / "sweep", compose([*TINY, *overrides]))


def lane(run):
    import jax

    from harness.data import Reader, open_data

    config, facts = read_config(run.config), assignment(run).provenance.facts
    corpus = open_data(config.data)
    assert isinstance(corpus, ImageCorpus)
    reader = Reader(corpus.sampler(config.scale.batch, config.data_seed))
    model = build(config, facts.shape["vocabulary"], image=image_size(facts.shape))
    held, gallery = corpus.heldout(config.evaluation.tokens), corpus.pca_features(config.evaluation.tokens)
    return make_run_programs(config, model, jax.devices()[:1], reader.get, held, gallery)


def train(run, stop=None):
    return train_run(assignment(run), lane(run), stop or threading.Event())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = prepare(tmp_path_factory.mktemp("images"), "variant=adaptive_norm")
    assert train(run) is State.finished
    return run


def test_a_run_learns_at_every_noise_level(trained):
    steps, evals = read_curve(trained, "steps"), read_curve(trained, "evals")
    assert steps["loss"][-1] < steps["loss"][0] - 0.5
    last = evals.filter(evals["step"] == 30)
    assert last["domain"].to_list() == [f"digits t={level}" for level in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert last["bits_per_byte"].is_null().all()
    assert cast(float, last["loss"].max()) < 1.9
    assert assignment(trained).provenance.facts.loss_unit == "mean squared error a value"


def test_a_run_leaves_a_grid_and_a_distance(trained):
    color, pixels = read(trained.sample_grid.read_bytes())
    assert color == 0
    assert pixels.shape == (4 * 58 + 2, 10 * 58 + 2, 1)
    found = read_sample_quality(trained)
    assert found.count == 64
    assert found.features == "32 principal components of the training images"
    assert 0 < found.floor < found.distance


@pytest.mark.slow
def test_stopped_and_resumed_is_bitwise_the_same(trained, tmp_path):
    run, stop = prepare(tmp_path, "variant=adaptive_norm"), threading.Event()
    first = lane(run)
    stopped = dataclasses.replace(first, get_batch=stopping_at(13, first.get_batch, stop))
    assert train_run(assignment(run), stopped, stop) is State.preempted
    assert train(run) is State.finished
    assert curve(run).equals(curve(trained))
    assert curve(run, "evals").equals(curve(trained, "evals"))
    assert run.sample_grid.read_bytes() == trained.sample_grid.read_bytes()


@pytest.mark.slow
def test_variants_read_the_same_rows(trained, tmp_path):
    other = prepare(tmp_path, "variant=in_context")
    assert train(other) is State.finished
    hashes = [read_json(run.path / "examples.json") for run in (trained, other)]
    assert hashes[0] == hashes[1]
    assert read_sample_quality(other).floor == read_sample_quality(trained).floor


def test_the_verb_makes_a_grid(trained, tmp_path, capsys):
    where = f"{trained.path}@30"
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        arguments = ["--to", f"{tmp_path}/{name}.png", "--per-label", "2", "--steps", "3", "--seed", seed]
        assert main(["sample", where, *arguments]) == 0
    assert capsys.readouterr().out.split() == [f"{tmp_path}/{name}.png" for name in "abc"]
    one, again, other = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert one == again != other
    assert read(one)[1].shape == (2 * 58 + 2, 10 * 58 + 2, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"per_label": 0}, "--per-label=0"),
        ({"steps": 0}, "--steps=0"),
        ({"seed": -1}, "--seed=-1"),
        ({"guidance": float("nan")}, "--guidance=nan"),
    ],
)
def test_numbers_out_of_range_are_said(trained, changes, said):
    with pytest.raises(UserError, match=said):
        sample_images(trained.path, **changes)


def test_what_is_for_text_alone_is_said(trained, tmp_path):
    with pytest.raises(UserError, match="writes no text"):
        sample(trained.path)
    with pytest.raises(UserError, match="Only text models can be exported"):
        export(trained.path, "hf", tmp_path / "out")
    found = diff(f"{trained.path}@20", f"{trained.path}@30")
    assert found.function.refused == "image models do not predict tokens"
    assert found.weights.total.parameters


def test_the_distance_of_two_normals_is_the_closed_form():
    """Of commuting covariances: |m1 - m2|^2 + sum (s1 - s2)^2, in any rotation."""
    draw = np.random.default_rng(0)
    turn_KK = np.linalg.qr(draw.normal(size=(3, 3)))[0]
    one_NK = draw.normal(size=(4_000, 3))
    one_NK = (one_NK - one_NK.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(one_NK.T)).T)
    spread = np.array([1.0, 2.0, 0.5])
    other_NK = one_NK * spread + [1, 0, 2]
    expected = 5 + ((spread - 1) ** 2).sum()
    assert frechet_distance(one_NK @ turn_KK, other_NK @ turn_KK) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(one_NK, one_NK) == pytest.approx(0, abs=1e-9)
