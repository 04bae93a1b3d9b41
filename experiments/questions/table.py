"""Table of verdicts in README.md, from finished sweeps: `python -m experiments.questions.table [RUNS]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import harness
from harness.compare.results.comparison import Comparison
from harness.compare.results.verdict_types import Decision, Rung
from harness.config.variants.question_files import Question, read_questions
from harness.report.tables.wording import format_effect, format_multiplier

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- verdicts: python -m experiments.questions.table -->\n", "<!-- end -->"
SCALES = ("s", "m")
HEAD = f"| question | row | control | n | {' | '.join(SCALES)} |\n|---|---|---|---|{'---|' * len(SCALES)}\n"
WORDS = {
    Decision.B_BETTER: "better",
    Decision.A_BETTER: "worse",
    Decision.EQUIVALENT: "as good",
    Decision.INCONCLUSIVE: "open",
    Decision.INVALID: "not comparable",
}


def main(runs: str = "runs") -> int:
    """Write a row for each question that a sweep of the folder has asked; other rows stay. Return 0."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    questions = {question.name: question for question in read_questions()}
    cells = {line: line.split("|")[1].strip() for line in table.splitlines() if line}
    rows = {name: line for line, name in cells.items() if name in questions}
    for folder in sorted(Path(runs).glob("question_*")):
        rows |= _rows(harness.open_sweep(folder).comparison, questions)
    lines = "".join(f"{rows[name]}\n" for name in sorted(rows))
    README.write_text(f"{before}{BEGIN}\n{HEAD}{lines}\n{END}{after}", encoding="utf-8")
    return 0


def _rows(comparison: Comparison, questions: dict[str, Question]) -> dict[str, str]:
    """Return the line of each question of a sweep, by name."""
    rungs: dict[str, list[Rung]] = {}
    for rung in comparison.rungs:
        rungs.setdefault(rung.variant, []).append(rung)
    return {
        name: f"| {' | '.join(_cells(questions[name], rungs[name]))} |" for name in rungs if name in questions
    }


def _cells(question: Question, rungs: list[Rung]) -> Iterator[str]:
    by_scale = {rung.scale: rung for rung in rungs}
    yield from (question.name, question.row, rungs[0].control, "/".join(str(rung.n) for rung in rungs))
    yield from (_verdict(by_scale[scale]) if scale in by_scale else "" for scale in SCALES)


def _verdict(rung: Rung) -> str:
    """Return the decision with k, or with the difference in loss if there is no k."""
    if rung.k is None or rung.k.k is None:
        return f"{WORDS[rung.decision]}: loss {format_effect(rung.delta)}"
    return f"{WORDS[rung.decision]}: k {format_multiplier(rung.k)}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
