"""Every question's files keep one form; a few are trained here, the others by `make questions`."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import yaml

from harness.config.variants.question_files import (
    QUESTIONS,
    Question,
    question_files,
    read_catalogue,
    read_not_askable,
    read_questions,
)
from harness.config.variants.question_sweep import CONTROL
from harness.core.errors import UserError
from tests.questions.pool import try_all
from tests.questions.results import Trial, answered_rows, summary
from tests.questions.trial import try_question

BY_NAME = {question.name: question for question in read_questions()}
SOCKETS = {row.socket for row in read_catalogue()}
ALLOWED = {"harness.extend", "jax", "flax", "optax", "numpy", "experiments"}


def content_of(question: Question):
    return yaml.safe_load(question_files()[question.name].read_text())


@pytest.mark.parametrize("name", BY_NAME)
def test_a_question_is_declared_as_all_are(name):
    question, content = BY_NAME[name], content_of(BY_NAME[name])
    assert content["variant"]["name"] == name
    assert content["variant"]["touches"]
    assert question.row in {row.id for row in read_catalogue()}
    assert question.socket in SOCKETS
    assert content.get("rule", {}).get("control", CONTROL) in {CONTROL, *BY_NAME} - {name}
    for module in content.get("imports", ()):
        assert (QUESTIONS.parents[1] / f"{module.replace('.', '/')}.py").is_file()
    if question.module:
        assert f"experiments.questions.{question.socket}.{name}" in content["imports"]


@pytest.mark.parametrize("name", [name for name, question in BY_NAME.items() if question.module])
def test_a_question_uses_the_harness_through_extend_alone(name):
    assert {*imported_names(BY_NAME[name].module)} <= ALLOWED


def imported_names(file: Path | None):
    assert file
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names:
                yield name if top == "harness" else top


def test_a_row_has_a_question_or_a_reason_but_not_both():
    answered = {question.row for question in BY_NAME.values()}
    ids = [row.id for row in read_catalogue()]
    assert len({*ids}) == len(ids) == 142
    assert {*read_not_askable()} <= {*ids}
    assert not answered & {*read_not_askable()}


@pytest.mark.parametrize("name", ["z_loss", "attention_sinks"])
def test_a_question_trains(name):
    trial = try_question(name)
    assert (trial.problem, trial.size) == ("", "tiny")


def test_a_question_that_the_tiny_model_cannot_carry_gets_a_larger_one(monkeypatch):
    sizes = []

    def refuse_tiny(name, size):
        sizes.append(size)
        if size == "tiny":
            raise UserError("too few layers")

    monkeypatch.setattr("tests.questions.trial._train_beside_control", refuse_tiny)
    trial = try_question("windows_in_turn")
    assert (trial.problem, trial.size, sizes) == ("", "small", ["tiny", "small"])


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Names of questions with a mistake each."""
    monkeypatch.setattr("harness.config.variants.question_files.QUESTIONS", tmp_path)
    mistakes = {
        "silent": "touches: []}\nmodel: {norm_epsilon: 1e-5}",
        "unknown": "touches: [model]}\nmodel: {attention: {name: mhx}}",
        "infinite": "touches: [optimizer]}\noptimizer: {learning_rate: 1e30, clip_norm: 1e30}",
    }
    (tmp_path / "norm").mkdir()
    for name, text in mistakes.items():
        head = "# @package _global_\n# N1 a title\n# y = x\n# Source: none\n"
        (tmp_path / "norm" / f"{name}.yaml").write_text(f"{head}variant: {{name: {name}, {text}\n")
    question_files.cache_clear()
    yield
    question_files.cache_clear()


def test_a_mistake_is_one_sentence(broken):
    assert "differ in model.norm_epsilon" in try_question("silent").problem
    assert "did you mean 'mha'" in try_question("unknown").problem
    assert "the losses of its steps and of held-out data are" in try_question("infinite").problem


def test_a_process_that_dies_costs_one_question(monkeypatch):
    monkeypatch.setattr("tests.questions.pool.LIMIT_SECONDS", 0.0)
    trials = try_all(["z_loss"], 1, lambda trial: None)
    assert [trial.name for trial in trials] == ["z_loss"]
    assert trials[0].problem.startswith("its process ended with status -9")


def test_the_summary_counts_rows_and_names_failures():
    questions = [BY_NAME["experts"], BY_NAME["fine_experts"], BY_NAME["z_loss"], BY_NAME["alibi"]]
    trials = [Trial("experts", "", "tiny", 1.0), Trial("fine_experts", "", "tiny", 1.0)]
    trials += [Trial("z_loss", "It broke.", "", 0.0)]
    assert answered_rows(trials, questions) == {"F3"}
    count, _, *lines = summary(trials, questions)
    assert count == "1 of 142 rows askable without touching harness/; 3 questions"
    assert lines[0] == "failed: z_loss: It broke."
    assert len(lines) == 1 + 141
