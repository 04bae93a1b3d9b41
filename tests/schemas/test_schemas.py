"""Schemas of the outputs: published as the types of the results say, and kept by what the verbs print."""

from __future__ import annotations

import copy
import json

import pytest
from jsonschema import Draft202012Validator, ValidationError

from harness import cli
from harness.cli.json_output.json_text import SCHEMA_FOLDER, VERSIONS, json_text, schema_text
from tests.compare.synthetic import write_sweep
from tests.schemas.generate import as_text, make_schema, version_problem
from tests.schemas.outputs import OUTPUTS
from tests.schemas.valid import check_output

CURVES = "variant,scale,seed,step,tokens,loss\n" + "".join(
    f"{variant},s,{seed},{step},{step * 100},{loss + seed / 50 - step / 1000}\n"
    for variant, loss in (("a", 3.0), ("b", 2.9))
    for seed in (0, 1, 2)
    for step in (50, 100)
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> str:
    return str(write_sweep(tmp_path_factory.mktemp("runs") / "trial").path)


def printed(capsys, *words: str) -> str:
    assert cli.main(words) == 0
    return capsys.readouterr().out


def test_every_output_has_a_schema_and_no_other_file_lies_there():
    names = {path.stem for path in SCHEMA_FOLDER.glob("*.json")}
    assert names == {*VERSIONS} == {*OUTPUTS}


@pytest.mark.parametrize("name", VERSIONS)
def test_a_schema_is_published_as_the_types_say(name):
    """Where they differ, raise the version if the form has changed, and run `python -m tests.schemas`."""
    assert schema_text(name) == as_text(make_schema(name))
    Draft202012Validator.check_schema(json.loads(schema_text(name)))


def test_a_changed_form_needs_another_version():
    old = make_schema("verify")
    lost, typed, added, reworded = (copy.deepcopy(old) for _ in range(4))
    lost["properties"].pop("equal")
    lost["required"].remove("equal")
    typed["properties"]["equal"] = {"type": "string"}
    added["properties"]["more"] = {"type": "string"}
    reworded["properties"]["equal"]["description"] = "other words"
    assert version_problem(old, reworded) == "" == version_problem(None, old)
    assert "second number" in version_problem(old, added)
    assert "first number" in version_problem(old, lost)
    assert "first number" in version_problem(old, typed)
    for changed, version in ((added, "1.1"), (lost, "2.0"), (typed, "2.0")):
        changed["$id"] = f"urn:ab-harness:verify:{version}"
        assert version_problem(old, changed) == ""
    lost["$id"] = "urn:ab-harness:verify:1.1"
    assert "first number" in version_problem(old, lost)


@pytest.mark.parametrize("damage", [{"more": 1}, {"decision": "WON"}, {"largest_scale": 3}])
def test_an_output_of_another_form_is_refused(damage, sweep, capsys):
    output = json.loads(printed(capsys, "compare", sweep, "--json"))
    output["ladder"][0] |= damage
    with pytest.raises(ValidationError):
        check_output(json.dumps(output), "compare")


def test_comparisons_are_as_published(sweep, tmp_path, capsys):
    (tmp_path / "curves.csv").write_text(CURVES)
    one = check_output(printed(capsys, "compare", sweep, "--json"), "compare")
    assert one["schema"] == f"compare/{VERSIONS['compare']}"
    assert len(check_output(printed(capsys, "compare", sweep, sweep, "--json"), "compare")) == 2
    logs = printed(capsys, "compare", "--curves", str(tmp_path / "curves.csv"), "--decayed", "last", "--json")
    assert "provenance" not in check_output(logs, "compare")


def test_a_plan_is_as_published(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pair = ("variant=mha,short", "scale=xs", "seed=0,1", "cluster=h100x8")
    check_output(printed(capsys, "plan", *pair, "--json"), "plan")


def test_questions_and_tokens_are_as_published(capsys, tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"document {number} " * 40}) + "\n" for number in range(40)))
    check_output(printed(capsys, "questions", "attention", "--json"), "questions")
    check_output(printed(capsys, "tokenize", str(text), "--tokenizer", "byte", "--json"), "tokenize")


def test_numbers_that_are_not_finite_become_null():
    assert json.loads(json_text("verify", {"largest": float("nan")}))["largest"] is None
