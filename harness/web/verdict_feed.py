"""Verdict of a sweep on its page, judged anew in a thread of its own when held-out losses have changed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from harness.core import atomic_files
from harness.core.errors import UserError
from harness.core.number_format import plain_text
from harness.records.paths import SweepDir
from harness.web.page_state import PageState, json_numbers

if TYPE_CHECKING:
    from harness.compare import Comparison

CPU_SHARE = 0.1
"""Share of a core that judging may use while a sweep runs."""
INTERIM = (
    "So far: the sweep is not over. Only its end, and the looks that its rule announced, decide; a verdict "
    "that is read more often than that errs more often than its level says."
)


class VerdictFeed:
    """Judge of a sweep. `comparison` is the last one."""

    def __init__(self, sweep: SweepDir, state: PageState) -> None:
        self._sweep, self._state = sweep, state
        self._judged: Hashable = None
        self._thread: threading.Thread | None = None
        self._earliest = 0.0
        self.comparison: Comparison | None = None
        self._put_stored_verdict()

    def update(self, inputs: Hashable, variants: Sequence[str], is_over: bool) -> None:
        """Judge the sweep if what a verdict depends on differs from the last time, and time allows."""
        waits = time.monotonic() < self._earliest and not is_over
        if waits or inputs == self._judged or self.is_busy:
            return
        self._judged = inputs
        self._thread = threading.Thread(target=self._judge, args=(variants, is_over))
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """True while a verdict is being computed."""
        return self._thread is not None and self._thread.is_alive()

    def _put_stored_verdict(self) -> None:
        """Put the verdict that the sweep command stored, until it is judged here."""
        stored = atomic_files.read_json(self._sweep.comparison)
        text = stored.get("verdict") if isinstance(stored, dict) else None
        lines = [plain_text(line) for line in text.split("\n")] if isinstance(text, str) else []
        self._state.put("verdict", {"lines": lines, "html": "", "tables": ""})

    def _judge(self, variants: Sequence[str], is_over: bool) -> None:
        from harness.compare import compare

        start = time.monotonic()
        try:
            comparison = compare(self._sweep)
        except (OSError, ValueError, UserError, pl.exceptions.PolarsError):
            return  # the sweep is being deleted, or is gone: the next reading says so
        except KeyboardInterrupt:
            return  # Polars raises Ctrl-C here too; the main thread ends the page
        self.comparison = comparison
        self._put(comparison, variants, is_over)
        self._earliest = time.monotonic() + (time.monotonic() - start) / CPU_SHARE

    def _put(self, comparison: Comparison, variants: Sequence[str], is_over: bool) -> None:
        from harness.report.frames.sweep_frames import end_effects
        from harness.report.page.html import paragraph, section, table
        from harness.report.page.verdict_header import scale_table, verdict_header
        from harness.report.tables import comparison_tables as tables

        order = dict.fromkeys([comparison.rule.control, *comparison.rule.family, *variants])
        scales = [piece for ladder in comparison.ladder for piece in scale_table(comparison, ladder)]
        sections = [
            section("Scales", "", *scales),
            section("Fairness", "What each variant was given.", table(tables.fairness(comparison))),
            section("Flags", "", table(tables.flags(comparison)), table(tables.divergence(comparison))),
        ]
        note = "" if is_over else paragraph(INTERIM, "interim")
        content: dict[str, Any] = {"lines": [], "html": verdict_header(comparison, [*order]) + note}
        self._state.put("verdict", content | {"tables": "".join(sections)})
        ends: dict[str, dict[str, Any]] = {}
        for row in end_effects(comparison).iter_rows(named=True):
            numbers = json_numbers([row[name] for name in ("tokens", "mean", "low", "high")])
            ends.setdefault(row["variant"], {})[row["scale"]] = [*numbers, row["label"]]
        self._state.put("ends", ends)


def judged_inputs(version: int, states: Sequence[str]) -> Hashable:
    """Return what a verdict depends on: the held-out losses, by their version, and the states of the runs."""
    return version, json.dumps(states)
