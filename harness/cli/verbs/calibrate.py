"""`harness plan --calibrate`: how good predictions were, of this machine's runs or of published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.cli.views.prediction_accuracy import judged, print_accuracy
from harness.cli.views.published_runs import rows_table
from harness.compare.results.to_json import to_json
from harness.core.paths import local_path
from harness.launcher.cost import prediction_log
from harness.plan.validation.cross_validation import judge_rows, read_rows, summary
from harness.plan.validation.fit import fit
from harness.report.tables.terminal import NARROW, say, section
from harness.report.tables.text_table import without


def calibrate(rows: str, *, as_json: bool) -> int:
    """Of published runs in the file `rows`, or of what finished runs left behind where that is empty.

    Exit status. Raises UserError where there is nothing.
    """
    if not rows:
        return _here(as_json)
    return _published(Path(local_path(rows, "copy it here", "--calibrate ")), as_json)


def _here(as_json: bool) -> int:
    kept = prediction_log.read()
    found = judged(kept)
    if as_json:
        _print({"machines": found, "runs": kept.predictions, "skipped": kept.skipped})
    else:
        print_accuracy(kept, found, Console())
    return 0


def _published(path: Path, as_json: bool) -> int:
    seen = read_rows(path)
    rows = judge_rows(seen)
    if as_json:
        _print({"runs": rows, "fitted": fit(seen)})
    else:
        console, content = Console(), rows_table(rows)
        content = content if console.width >= NARROW else without(content, ("source",))
        section(console, "Published runs, leaving one source out", content)
        say(console, summary(seen))
    return 0


def _print(content: dict[str, Any]) -> None:
    print(json.dumps(to_json(content), indent=2, sort_keys=True, allow_nan=False))
