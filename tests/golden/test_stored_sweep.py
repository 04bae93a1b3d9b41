"""A sweep that older code left is compared, verified, exported and recognised by today's."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
import yaml

from tests.golden.support import (
    COMMAND,
    FINISHED,
    SWEEP,
    UNFINISHED,
    check_list,
    compared,
    content,
    expected,
    give_other_code,
    harness,
    key_paths,
    python,
    read_json,
    said_json,
    tensor_hash,
    unpack,
)  # fmt: skip

PLACES = ("ladder", "mesh", "cluster", "engine", "resume", "rule", "gate", "tune", "profile", "runs")
"""Nodes of a config that are no part of a run's identity."""
EXPORT = """
import sys
from harness.cli import main
sys.exit(max(main(["export", f"runs/golden/{run}", "--to", "hf", f"hf/{run}"]) for run in sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The stored sweep, for those who only read it."""
    return unpack(tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="module")
def comparison(stored):
    return compared(stored)


def differences(one, other, path=""):
    """Yield where two results differ: floats by more than arithmetic does, all else at all. Sentences may be
    reworded."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from differences(one.get(key, "absent"), other.get(key, "absent"), f"{path}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for position, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from differences(left, right, f"{path}[{position}]")
    elif isinstance(one, float) and isinstance(other, float):
        if not math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12):
            yield f"{path}: {one} became {other}"
    elif one != other and not (is_sentence(one) and is_sentence(other)):
        yield f"{path}: {one} became {other}"


def is_sentence(value) -> bool:
    return isinstance(value, str) and " " in value


def test_its_comparison_has_the_keys_that_it_had(comparison):
    check_list("compare", {*key_paths(comparison)})


def test_its_comparison_has_the_numbers_that_it_had(comparison):
    numbers = {key: value for key, value in comparison.items() if key != "schema"}  # which came later
    assert [*differences(expected()["comparison"], numbers)] == []


def test_a_finished_run_is_verified_and_its_bits_are_equal_where_the_machine_is(stored):
    before = content(stored)
    done = harness("verify", str(SWEEP / "xs/mha/seed0"), "--json", cwd=stored)
    found = said_json(done, 0, 1)
    assert (found["first"], found["last"]) == (100, 120)
    assert found["columns"] == ["loss", "grad_norm", "learning_rate", "tokens", "flops"]
    assert [(state["step"], state["same_examples"]) for state in found["states"]] == [(120, True)]
    assert done.returncode == (0 if found["same"] else 1)
    if {change["what"] for change in found["changes"]} <= {"code"}:  # this CPU, and these libraries
        assert found["same"], found["parting"] or found["states"]
    assert content(stored) == before, "verify wrote something"


def test_other_code_is_named_and_no_reason_to_differ(tmp_path):
    run = unpack(tmp_path) / SWEEP / "xs/mha/seed0"
    give_other_code(run)
    found = said_json(harness("verify", str(run), "--json", cwd=tmp_path), 0, 1)
    (code,) = [change for change in found["changes"] if change["what"] == "code"]
    assert code["then"] == "f" * 12
    assert len(code["now"]) == 12
    if {change["what"] for change in found["changes"]} == {"code"}:
        assert found["same"]


def test_exported_tensors_are_what_they_were(stored):
    done = python(EXPORT, *FINISHED, cwd=stored)
    assert done.returncode == 0, done.stderr
    found = {run: tensor_hash(stored / "hf" / run / "model.safetensors") for run in FINISHED}
    assert found == expected()["tensors"]
    names = {path.name for path in (stored / "hf" / FINISHED[0]).iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.mark.parametrize("name", [*FINISHED, UNFINISHED])
def test_a_stored_config_has_the_identity_that_it_had(stored, name):
    run = stored / SWEEP / name
    config = yaml.safe_load((run / "config.yaml").read_text())
    own = {key: value for key, value in config.items() if key not in PLACES}
    text = json.dumps(own, sort_keys=True, separators=(",", ":"))
    identity = hashlib.sha256(text.encode()).hexdigest()
    assert identity == read_json(run / "run.json")["identity"] == expected()["identities"][name]


def test_the_command_finds_its_own_runs_there(stored):
    done = harness("sweep", *COMMAND, "--dry-run", cwd=stored)
    assert done.returncode == 0, done.stderr


def test_another_config_is_refused_there(stored):
    done = harness("sweep", *COMMAND, "optimizer.b1=0.8", "--dry-run", cwd=stored)
    assert done.returncode == 2
    assert "holds another run: " in done.stderr
    assert "optimizer.b1 (0.9 against 0.8)" in done.stderr


def test_a_config_that_was_changed_is_refused(tmp_path):
    run = unpack(tmp_path) / SWEEP / "xs/mha/seed0"
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("learning_rate: 0.012", "learning_rate: 0.013"))
    done = harness("export", str(run), "--to", "hf", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "does not fit its checksum" in done.stderr
