"""`harness plan --accuracy`: accuracy of step time predictions for runs of this machine or published ones."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from harness.cli.json_output.json_text import json_text
from harness.cli.views.prediction_accuracy import measure_accuracy, print_accuracy, published_runs_table
from harness.core.paths import local_path
from harness.launcher.cost import prediction_log
from harness.plan.validation import accuracy_summary, cross_validate, fit_calibration, predict_published_rows
from harness.report.tables.terminal import print_line, print_table


def report_accuracy(rows: str, *, as_json: bool) -> None:
    """Print the accuracy for published runs in the file `rows`, or for this machine's runs if that is empty.
    Raises UserError if there is no run."""
    if rows:
        _print_published_accuracy(Path(local_path(rows, "copy it here", "--accuracy ")), as_json)
    else:
        _print_local_accuracy(as_json)


def _print_local_accuracy(as_json: bool) -> None:
    log = prediction_log.read_predictions()
    accuracies = measure_accuracy(log)
    if as_json:
        content = {"machines": accuracies, "runs": log.predictions, "skipped": log.skipped}
        print(json_text("plan_accuracy", content))
    else:
        print_accuracy(log, accuracies, Console())


def _print_published_accuracy(path: Path, as_json: bool) -> None:
    predictions = predict_published_rows(path)
    rows = cross_validate(predictions)
    if as_json:
        print(json_text("plan_published", {"runs": rows, "fitted": fit_calibration(predictions)}))
    else:
        console = Console()
        print_table(console, "Published runs, leaving one source out", published_runs_table(rows))
        print_line(console, accuracy_summary(predictions))
