"""Lists of what there is: sweeps in a folder, and the named choices of each group of the config."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.number_format import choose_time_unit, plain_text
from harness.records.sweep.sweep_summary import SweepSummary

SECONDS_PER_DAY = 86_400
_HYPOTHESIS = re.compile(r"^  hypothesis: (.+)$", re.MULTILINE)
_COMMENTS = re.compile(r"(?:# @package .*\n)?((?:#.*\n)+)")
_SENTENCE = re.compile(r".+?[.?!](?= |$)")


@dataclass(frozen=True)
class NamedChoice:
    """Option of a group of the config, such as a variant."""

    name: str
    description: str
    """First sentence of the comment in its file, or the hypothesis of an experiment."""
    file: str


@dataclass(frozen=True)
class Listing:
    """Sweeps, and named choices by group; only the kinds that were asked for."""

    sweeps: tuple[SweepSummary, ...]
    choices: Mapping[str, tuple[NamedChoice, ...]]


def read_choice(name: str, file: Path) -> NamedChoice:
    """Return an option with its description, without parsing its YAML."""
    text = file.read_text(encoding="utf-8", errors="replace")
    hypothesis, comments = _HYPOTHESIS.search(text), _COMMENTS.match(text)
    lines = comments[1].splitlines() if comments else []
    comment = plain_text(" ".join(line.lstrip("# ") for line in lines))
    sentence = _SENTENCE.match(comment)
    description = plain_text(hypothesis[1]) if hypothesis else sentence[0] if sentence else comment
    return NamedChoice(name, description, str(file))


def choice_lines(group: str, choices: tuple[NamedChoice, ...], shipped_folders: Sequence[Path]) -> list[str]:
    """Return a line for each option, and where it lies if the harness does not ship it."""
    width = max((len(choice.name) for choice in choices), default=0)
    rows = [
        f"  {choice.name:{width}}  {choice.description}{_place(choice, shipped_folders)}"
        for choice in choices
    ]
    return [f"{group}=NAME, which may be", *rows]


def _place(choice: NamedChoice, shipped_folders: Sequence[Path]) -> str:
    is_shipped = any(Path(choice.file).is_relative_to(folder) for folder in shipped_folders)
    return "" if is_shipped else f" [{choice.file}]"


def sweep_lines(sweeps: tuple[SweepSummary, ...], folder: Path, now: float) -> list[str]:
    """Return a line for each sweep: its state, its age and its verdict."""
    if not sweeps:
        return [f"No sweep lies in {folder} yet; `harness sweep experiment=attention` makes one."]
    width = max(len(sweep.path) for sweep in sweeps)
    return ["sweeps", *(f"  {plain_text(sweep.path):{width}}  {_state(sweep, now)}" for sweep in sweeps)]


def _state(sweep: SweepSummary, now: float) -> str:
    state = "running" if sweep.is_running else "over" if sweep.num_ended == sweep.num_runs else "stopped"
    parts = [f"{state}, {sweep.num_ended} of {sweep.num_runs} runs ended"]
    parts += [f"{sweep.num_failed} failed"] if sweep.num_failed else []
    unit, per_day = choose_time_unit(max(0.0, now - sweep.changed) / SECONDS_PER_DAY)
    age = f"{max(0.0, now - sweep.changed) / SECONDS_PER_DAY * per_day:.0f} {unit} ago"
    verdict = [f"{variant} {decision}" for variant, decision in sweep.decisions.items()]
    return "; ".join([", ".join(parts), age, ", ".join(verdict) or "no verdict"])
