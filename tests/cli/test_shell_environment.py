"""The shell around a command: its options of JAX change no number, and its cache is proved before a start."""

import pytest

from harness.records.paths import RunDir
from harness.records.run.metrics import read_curve
from tests.cli.support import run
from tests.training.runs import TINY, write_text

TRAIN = (
    "train", "data=own", "data.sources.own.path=text.txt", *TINY, "scale.tokens=1024", "schedule.branches=[]",
    "experiment_name=shell",
)  # fmt: skip


def trained(folder, **shell):
    folder.mkdir()
    write_text(folder)
    status, output, errors = run(*TRAIN, folder=folder, **shell)
    assert status == 0, errors
    (place,) = folder.glob("runs/shell/*/*/seed0")
    curve = read_curve(RunDir(place), "steps")
    return curve.drop(name for name in curve.columns if "seconds" in name), output + errors


@pytest.mark.slow  # two runs as training compiles them; tests/core/test_jax_variables.py is its quick part
def test_options_of_jax_in_the_shell_are_named_and_change_nothing(tmp_path):
    """One cache for both: the first would have left another program for the second."""
    cache = str(tmp_path / "cache")
    shell = {"JAX_ENABLE_X64": "1", "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16", "AB_HARNESS_CACHE": cache}
    curve, words = trained(tmp_path / "a", **shell)
    expected, other_words = trained(tmp_path / "b", AB_HARNESS_CACHE=cache)
    assert curve.equals(expected)
    assert "JAX_DEFAULT_MATMUL_PRECISION=bfloat16, JAX_ENABLE_X64=1 are not used" in words
    assert "not used" not in other_words


@pytest.mark.parametrize("verb", ["sweep", "train"])
def test_a_cache_that_others_can_write_is_refused_before_anything_starts(verb, tmp_path):
    write_text(tmp_path)
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    status, _, errors = run(verb, *TRAIN[1:], folder=tmp_path, AB_HARNESS_CACHE=str(cache))
    assert status == 2
    assert errors.count("\n") == 1
    assert "other users can write into the cache folder" in errors
    assert not (tmp_path / "runs").exists()
    assert not [*cache.iterdir()]
