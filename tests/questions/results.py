"""Results of trying questions, and what they say of the catalogue."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config.variants.question_files import Question, read_catalogue, read_not_askable


@dataclass(frozen=True)
class Trial:
    """What came of a question."""

    name: str
    problem: str
    """Sentence that says what went wrong; empty if nothing did."""
    size: str
    seconds: float


def num_lines(module: Path) -> int:
    """Return the lines of a Python file that are not empty."""
    return sum(bool(line.strip()) for line in module.read_text().splitlines())


def trial_line(trial: Trial, question: Question) -> str:
    """Return one line for one question."""
    size = "" if trial.size == "tiny" else f", {trial.size}"
    outcome = trial.problem or f"ok, {trial.seconds:.1f} s{size}"
    return f"{question.row:4} {question.socket:14} {question.name:26} {outcome}"


def answered_rows(trials: Iterable[Trial], questions: Sequence[Question]) -> set[str]:
    """Return the ids of the rows of which a question works."""
    rows = {question.name: question.row for question in questions}
    return {rows[trial.name] for trial in trials if not trial.problem}


def summary(trials: Sequence[Trial], questions: Sequence[Question]) -> list[str]:
    """Return the count of rows, the length of a question, the failures, and each row without a question."""
    rows, reasons, answered = read_catalogue(), read_not_askable(), answered_rows(trials, questions)
    lengths = [num_lines(question.module) for question in questions if question.module]
    failures = [trial for trial in trials if trial.problem]
    return [
        f"{len(answered)} of {len(rows)} rows askable without touching harness/; {len(trials)} questions",
        f"{len(questions) - len(lengths)} questions are a YAML file alone; the Python file of the others has "
        f"{statistics.median(lengths):.0f} lines in the median, {max(lengths)} at most",
        *(f"failed: {trial.name}: {trial.problem}" for trial in failures),
        *(
            f"not asked: {row.id} {row.title}: {reasons.get(row.id, 'no reason is given')}"
            for row in rows
            if row.id not in answered
        ),
    ]
