"""`make questions`: every question vetted and trained for a few steps, and the count of the catalogue's rows.

`python -m tests.questions NAME...` tries some of them.
"""

from __future__ import annotations

import argparse

from harness.config.variants.question_files import read_questions
from harness.core.errors import UserError, did_you_mean
from tests.questions.pool import try_all
from tests.questions.results import Trial, answered_rows, summary, trial_line

WANTED = 125
"""Rows of the catalogue below which the command fails."""


def main() -> int:
    """Print a line for each question as it ends, and the summary; 1 if one fails or too few rows are left."""
    parser = argparse.ArgumentParser(prog="python -m tests.questions")
    parser.add_argument("names", nargs="*", help="questions to try; all of them if there is none")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args()
    questions = {question.name: question for question in read_questions()}
    for name in options.names:
        if name not in questions:
            raise SystemExit(f"{name}: no such question; {did_you_mean(name, questions)}")
    names = options.names or [*questions]

    def report(trial: Trial) -> None:
        print(trial_line(trial, questions[trial.name]), flush=True)

    trials = try_all(names, min(options.workers, len(names)), report)
    has_failed = any(trial.problem for trial in trials)
    if options.names:
        return int(has_failed)
    print("", *summary(trials, [*questions.values()]), sep="\n")
    return int(len(answered_rows(trials, [*questions.values()])) < WANTED)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except UserError as error:
        raise SystemExit(str(error)) from None
