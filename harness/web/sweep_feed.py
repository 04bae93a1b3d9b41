"""Everything that the page of one sweep shows, read from its directories."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.compare.inputs.json_values import read_json_object
from harness.core.errors import UserError
from harness.records.paths import SweepDir
from harness.records.run.utilisation import describe_utilisation
from harness.records.sweep.find_sweep import find_sweep
from harness.report.frames import lane_bars
from harness.report.frames.sweep_progress import ProgressReader, SweepProgress
from harness.report.tables import progress_tables as lines
from harness.web.curve_feed import CurveFeed
from harness.web.page_state import PageState, json_numbers
from harness.web.verdict_feed import VerdictFeed, judged_inputs

SHOWN_RUNS, SHOWN_FAILURES = 12, 8
"""Numbers of running runs and of failures that the page lists, at most."""
LANE_SECONDS = 5.0
"""Seconds between two drawings of the lanes while a phase goes on."""
RUNNING, FAILED, ENDED, WAITING, QUEUED = "running", "failed", "ended", "at a look", "queued"


@dataclass
class _Readers:
    """Readers of a sweep that is there."""

    sweep: SweepDir
    progress: ProgressReader
    curves: CurveFeed
    verdict: VerdictFeed


class SweepFeed:
    """Reader of one sweep for its page. One thread calls `update`."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.state = PageState()
        self._readers: _Readers | None = None
        self._next_lanes = 0.0
        self._domains: tuple[str, ...] = ()

    def update(self, now: float) -> bool:
        """Read what changed until `now`, in UTC seconds. Return whether there is more to read at once."""
        readers = self._readers or self._open()
        progress = readers.progress.read(now) if readers else None
        if readers is None or progress is None or not progress.runs:
            self._say_gone()
            return False
        self.state.put("notice", None)
        self._update_domains(readers)
        self._put_setup(progress, readers)
        self._put_progress(progress)
        complete = readers.curves.update(progress, self._domains)
        if complete:
            states = [f"{run.name} {run.status.state.value}" for run in progress.runs]
            inputs = judged_inputs(readers.curves.version, states)
            variants = sorted({run.record.variant for run in progress.runs})
            readers.verdict.update(inputs, variants, progress.is_over)
        self._put_lanes(progress, now)
        return not complete

    @property
    def is_judging(self) -> bool:
        """True while a verdict is being computed."""
        return self._readers is not None and self._readers.verdict.is_busy

    def _open(self) -> _Readers | None:
        try:
            sweep = find_sweep(self.path)
        except UserError as error:
            self.state.put("notice", {"kind": "waiting", "text": f"Waiting for the sweep to begin: {error}"})
            return None
        curves, verdict = CurveFeed(sweep, self.state), VerdictFeed(sweep, self.state)
        self._readers = _Readers(sweep, ProgressReader(sweep), curves, verdict)
        return self._readers

    def _say_gone(self) -> None:
        """Say that a sweep that was shown has no runs any more; it is opened anew when it has."""
        if self._readers is None:
            return
        self._readers = None
        text = f"{self.path} has no runs any more: it was moved or deleted. What it was is shown below."
        self.state.put("notice", {"kind": "gone", "text": text})

    def _update_domains(self, readers: _Readers) -> None:
        """Take the domains of the rule as it was judged, before that as its file says."""
        if comparison := readers.verdict.comparison:
            domains = comparison.rule.domains
        else:
            content = read_json_object(readers.sweep.rule)
            rule = content.get("rule")
            names = (rule if isinstance(rule, dict) else content).get("domains")
            domains = tuple(map(str, names)) if isinstance(names, list) else ()
        if domains != self._domains:
            self._domains = domains
            readers.curves.read_again()

    def _put_setup(self, progress: SweepProgress, readers: _Readers) -> None:
        comparison = readers.verdict.comparison
        family = comparison.rule.family if comparison else ()
        variants = dict.fromkeys([progress.control, *family, *(run.record.variant for run in progress.runs)])
        of_scale = {run.record.scale: run for run in progress.runs}
        scales = [
            {"name": name, "unit": run.record.facts.loss_unit, "t": run.record.tokens, "s": run.steps}
            for name, run in sorted(of_scale.items(), key=lambda item: item[1].flops)
        ]
        names = [name for name in variants if name]
        self.state.put("setup", {"control": progress.control, "variants": names, "scales": scales})

    def _put_progress(self, progress: SweepProgress) -> None:
        from harness.report.page.html import table

        states = run_states(progress)
        listed_runs = progress.running[:SHOWN_RUNS]
        failures = [lines.failure_text(run) for run in progress.failures[:SHOWN_FAILURES]]
        rest = len(progress.failures) - len(failures)
        notes = [lines.damage_text(progress), lines.idle_text(progress)]
        content: dict[str, Any] = {
            "name": progress.name,
            "state": state_text(progress),
            "share": round(progress.done_share, 4),
            "summary": lines.summary_text(progress),
            "counts": Counter(states.values()),
            "failures": failures + ([f"and {rest} more with a failure"] if rest else []),
            "queue": lines.queue_lines(progress),
            "running": table(lines.running_table(listed_runs, progress.control)),
            "more": len(progress.running) - len(listed_runs),
            "activities": [
                f"{run.name}: {run.status.activity}" for run in listed_runs if run.status.activity
            ],
            "legend": lines.delta_legend(progress, listed_runs),
            "notes": [note for note in notes if note],
        }
        self.state.put("progress", content)
        cells = [[run.name, states[run.name], round(run.done_share, 2)] for run in progress.runs]
        self.state.put("runs", cells)

    def _put_lanes(self, progress: SweepProgress, now: float) -> None:
        """Put the phases of all runs over time, and the utilisation; while a phase goes on, now and then."""
        if progress.running and now < self._next_lanes:
            return
        self._next_lanes = now + LANE_SECONDS
        used = progress.utilisation
        if used is None:
            self.state.put("lanes", None)
            return
        rows = lane_bars.pack_rows({run.name: run.spans for run in progress.runs if run.spans})
        unit, name = lane_bars.time_unit(used.seconds)
        bars = [[_bar_values(bar, unit) for bar in row] for row in lane_bars.drawn_rows(rows, used.seconds)]
        texts = describe_utilisation(used, progress.unreadable_lines) + lane_bars.lanes_left_out(rows)
        end = float(f"{used.seconds / unit:.4g}")
        content = {"unit": name, "end": end, "rows": bars, "lines": texts}
        self.state.put("lanes", content | {"phases": lane_bars.PHASES})


def _bar_values(bar: lane_bars.PhaseBar, unit: float) -> list:
    return [bar.run, bar.phase, *json_numbers([bar.start / unit, bar.end / unit]), bar.devices]


def state_text(progress: SweepProgress) -> str:
    """Return the state of a sweep in a word or two: it is stopped if no process is left to train what is
    queued."""
    if not progress.is_over:
        return "at work"
    return "stopped" if progress.queue else "over"


def run_states(progress: SweepProgress) -> dict[str, str]:
    """Return the state of each run in a word, by the name of the run."""
    groups = {
        RUNNING: progress.running,
        FAILED: progress.failures,
        ENDED: progress.ended,
        WAITING: progress.waiting_at_look,
        QUEUED: progress.queue,
    }
    return {run.name: state for state, runs in groups.items() for run in runs}
