"""`harness questions`: list the questions that ship in experiments/questions, and the rows without one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.cli.json_output.json_text import json_text
from harness.cli.verb_parser import VerbParser
from harness.core.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from harness.config.variants.question_files import CatalogueRow, Question

NO_REASON = "nobody has written it yet"


@dataclass(frozen=True)
class MissingRow:
    """Row of the catalogue without a question, and why."""

    row: CatalogueRow
    reason: str


def make_parser() -> VerbParser:
    """Build the parser of `harness questions`."""
    parser = VerbParser(
        "questions",
        "list the questions that `harness sweep experiment=question question=NAME` asks",
        "harness questions attention",
        "Each is a YAML file in experiments/questions, most with a Python file beside it. The list ends with "
        "the\nrows of the catalogue that have none.",
        uses_jax=False,
    )
    parser.add(
        "words", "WORD", "questions with all these words in name, formula, socket or source", nargs="*"
    )
    parser.add("--socket", "SOCKET", "questions of one socket, such as optimizer", default=None)
    parser.add_flag("--json", "print all that is known of each as JSON")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Print the questions. Return the exit status."""
    options = make_parser().parse_args(arguments)
    from harness.config.variants.question_files import read_questions

    questions, missing = read_questions(), _missing_rows()
    sockets = {question.socket for question in questions} | {item.row.socket for item in missing}
    if options.socket and options.socket not in sockets:
        answer = did_you_mean(options.socket, sorted(sockets))
        raise UserError(f"--socket {options.socket}: no such socket; {answer}")
    questions = [item for item in questions if _matches(options, item.socket, _question_texts(item))]
    missing = [item for item in missing if _matches(options, item.row.socket, (item.row.id, item.row.title))]
    if not (questions or missing):
        words = " ".join(options.words)
        raise UserError(f"harness questions {words}: no question has these words. Leave some of them out.")
    if options.json:
        print(json_text("questions", _to_json(questions, missing)))
    else:
        print(*map(_question_line, questions), *map(_missing_line, missing), sep="\n")
    return 0


def _missing_rows() -> list[MissingRow]:
    from harness.config.variants.question_files import read_catalogue, read_not_askable, read_questions

    reasons, answered_rows = read_not_askable(), {question.row for question in read_questions()}
    rows = [row for row in read_catalogue() if row.id not in answered_rows]
    return [MissingRow(row, reasons.get(row.id, NO_REASON)) for row in rows]


def _question_texts(question: Question) -> tuple[str, ...]:
    return (
        question.name, question.row, question.title, question.summary, question.socket, question.source
    )  # fmt: skip


def _matches(options: Any, socket: str, texts: Iterable[str]) -> bool:
    text = " ".join([socket, *texts]).lower()
    return options.socket in (None, socket) and all(word.lower() in text for word in options.words)


def _question_line(question: Question) -> str:
    place = f"{question.name:24} {question.row:4} {question.socket:14}"
    return f"{place} {question.title}: {question.summary} [{question.source}]"


def _missing_line(item: MissingRow) -> str:
    return f"{'(not askable)':24} {item.row.id:4} {item.row.socket:14} {item.row.title}: {item.reason}"


def _to_json(questions: Sequence[Question], missing: Sequence[MissingRow]) -> dict[str, Any]:
    return {
        "questions": [
            {
                "name": question.name, "row": question.row, "title": question.title,
                "computes": question.summary, "socket": question.socket, "source": question.source,
                "python": str(question.module) if question.module else None,
            }
            for question in questions
        ],
        "not_askable": [
            {
                "row": item.row.id, "title": item.row.title, "socket": item.row.socket,
                "reason": item.reason,
            }
            for item in missing
        ],
    }  # fmt: skip
