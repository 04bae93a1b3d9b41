"""`harness questions` lists what can be asked, and which rows of the catalogue cannot."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from harness import cli
from harness.config.variants import question_files
from harness.config.variants.question_files import read_catalogue, read_questions


def printed(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["questions", *arguments])
    return code, *capsys.readouterr()


def test_every_question_and_every_row_without_one_has_a_line(capsys):
    code, out, _ = printed(capsys)
    lines, questions = out.splitlines(), read_questions()
    answered = {question.row for question in questions}
    assert code == 0
    assert [line.split()[0] for line in lines[: len(questions)]] == [each.name for each in questions]
    assert len(lines) == len(questions) + sum(row.id not in answered for row in read_catalogue())


def test_a_line_has_name_row_socket_formula_and_source(capsys):
    _, out, _ = printed(capsys, "--socket", "objective", "z_loss")
    (line,) = out.splitlines()
    assert line.split()[:3] == ["z_loss", "O1", "objective"]
    assert "(log sum exp z)^2" in line
    assert line.endswith("[arXiv:2204.02311, section 5]")


def test_words_and_socket_choose(capsys):
    _, out, _ = printed(capsys, "Gemma", "SOFT")
    assert "score_softcap" in [line.split()[0] for line in out.splitlines()]
    _, out, _ = printed(capsys, "--socket", "data", "--json")
    content = json.loads(out)
    assert {item["socket"] for item in content["questions"]} == {"data"}
    assert {"name", "row", "title", "computes", "source", "python"} < content["questions"][0].keys()


def test_a_row_that_cannot_be_asked_has_its_reason(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(question_files, "QUESTIONS", tmp_path)
    question_files.question_files.cache_clear()
    (tmp_path / "catalogue.yaml").write_text("- [Z1, a title, data]\n- [Z2, another, data]\n")
    (tmp_path / "not_askable.yaml").write_text("Z1: It needs a tokenizer.\n")
    _, out, _ = printed(capsys)
    question_files.question_files.cache_clear()
    assert [line.rpartition(": ")[2] for line in out.splitlines()] == [
        "It needs a tokenizer.", "nobody has written it yet",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--socket", "optimiser"], "--socket optimiser: no such socket; did you mean 'optimizer'?"),
        (["xyzzy"], "harness questions xyzzy: no question has these words. Leave some of them out."),
    ],
)
def test_what_is_not_there_is_said(capsys, arguments, message):
    code, _, err = printed(capsys, *arguments)
    assert (code, err.strip()) == (2, message)


def test_the_list_needs_no_jax():
    code = (
        "import sys; from harness.cli import main; main(['questions', 'z_loss']); print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
