"""The rule that was written down before the first step, and what was decided otherwise since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.compare.inputs.run_records import RunRecord, digest_of
from harness.compare.results.comparison import Deviation, Rule
from harness.core import atomic_files
from harness.records.paths import SweepDir
from harness.records.sweep import ledger

AMENDMENTS = ("amendment", "amend", "replan", "deviation")
"""Kinds of ledger entries that change what was planned."""
JUDGES = ("control", "positive_control", "domains", "margin", "alpha", "stopping")
"""Keys of a rule that move a verdict."""


def read_rule(sweep: SweepDir, runs: Sequence[RunRecord]) -> tuple[Rule, list[Deviation], dict[str, Any]]:
    """The frozen rule, the deviations from it, and how learning rates were tuned."""
    content = content_of(sweep.rule)
    inner = content.get("rule")
    frozen: dict[str, Any] = inner if isinstance(inner, dict) else content
    carried = next((run.config["rule"] for run in runs if isinstance(run.config.get("rule"), dict)), {})
    deviations = _deviations(sweep, content, frozen, runs)
    return _rule(frozen or carried, runs, content), deviations, _tuning(sweep, content)


def _tuning(sweep: SweepDir, content: Mapping[str, Any]) -> dict[str, Any]:
    """By variant; those that came after the rule was written down stand in the ledger."""
    later = [entry["content"] for entry in ledger.read(sweep, "tuning")]
    found: dict[str, Any] = {}
    for holder in (content, *later):
        tuning = holder.get("tuning") if isinstance(holder, dict) else None
        for variant, entry in tuning.items() if isinstance(tuning, dict) else ():
            if isinstance(entry, dict):
                found.setdefault(variant, entry)
    return found


def content_of(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty where it is missing, damaged or something else."""
    content = atomic_files.read_json(path)
    return content if isinstance(content, dict) else {}


def gate_margins(sweep: SweepDir) -> dict[str, float] | None:
    """The margins of `gate` in rule.json, what it leaves out by default; None where none was asked for."""
    gate = content_of(sweep.rule).get("gate")
    if not isinstance(gate, dict) or gate.get("name") == "none":
        return None
    numbers = (int, float)
    return {k: float(v) for k, v in gate.items() if isinstance(v, numbers) and not isinstance(v, bool)}


def _rule(node: Mapping[str, Any], runs: Sequence[RunRecord], content: Mapping[str, Any]) -> Rule:
    variants = sorted({run.provenance.variant for run in runs})
    control = node.get("control")
    if not isinstance(control, str) or control in ("", "???"):
        control = variants[0] if variants else ""
    declared = node.get("family")
    family = declared if isinstance(declared, list) else [name for name in variants if name != control]
    positive, domains = node.get("positive_control"), node.get("domains")
    return Rule(
        hypothesis=str(node.get("hypothesis") or ""),
        control=control,
        positive_control=positive if isinstance(positive, str) else None,
        domains=tuple(map(str, domains)) if isinstance(domains, list) else (),
        margin=_within(node.get("margin"), 0.01, 0.0, 1.0),
        alpha=_within(node.get("alpha"), 0.05, 0.0, 0.5),
        stopping=str(node.get("stopping") or "none"),
        family=tuple(map(str, family)),
        hash=digest_of(content) if content else "",
    )


def _deviations(
    sweep: SweepDir, content: Mapping[str, Any], frozen: Mapping[str, Any], runs: Sequence[RunRecord]
) -> list[Deviation]:
    found = [] if content else [Deviation("no_rule", "no rule was written down before the first step")]
    found += _hash_deviations(sweep, content, frozen)
    found += _config_deviations(frozen, runs) if content else []
    for position in ledger.edited(sweep):
        found.append(
            Deviation("ledger_edited", f"entry {position} of the ledger was changed after it was written")
        )
    for entry in ledger.read(sweep):
        if entry["kind"] in AMENDMENTS:
            found.append(Deviation(entry["kind"], f"{entry['time']}: {_said(entry['content'])}"))
    return found


def _hash_deviations(
    sweep: SweepDir, content: Mapping[str, Any], frozen: Mapping[str, Any]
) -> list[Deviation]:
    """rule.json no longer fits the hash that it, or the ledger, was given: of all that it holds beside the
    hash, gate and tuning among them. Where there is nothing beside the rule, of the rule alone will do."""
    hashed = {key: value for key, value in content.items() if key != "hash"}
    accepted = {digest_of(hashed), digest_of(content)}
    accepted |= {digest_of(frozen)} if hashed.keys() <= {"rule"} else set()
    entries = [entry["content"] for entry in ledger.read(sweep, "rule")[:1]]
    claims = [holder.get("hash") for holder in (content, *entries) if isinstance(holder, Mapping)]
    if any(isinstance(claim, str) and claim not in accepted for claim in claims):
        return [Deviation("rule_edited", "rule.json was changed after its hash was taken")]
    return []


def _config_deviations(frozen: Mapping[str, Any], runs: Sequence[RunRecord]) -> list[Deviation]:
    """Runs that were launched under another rule."""
    found = {}
    for run in runs:
        carried = run.config.get("rule") or {}
        for key in JUDGES if isinstance(carried, dict) else ():
            if key in frozen and carried.get(key) != frozen[key]:
                found.setdefault(key, (run.path, carried.get(key)))
    return [
        Deviation("other_rule", f"{path} was launched with rule.{key} = {value!r}, not {frozen[key]!r}")
        for key, (path, value) in found.items()
    ]


def _within(value: Any, default: float, low: float, high: float) -> float:
    """The number if it is one inside (low, high), else the default."""
    if isinstance(value, int | float) and not isinstance(value, bool) and low < value < high:
        return float(value)
    return default


def _said(content: Any, most: int = 200) -> str:
    """The sentence that an entry carries; for one without, what it holds."""
    text = str(content.get("detail", content) if isinstance(content, dict) else content)
    return text if len(text) <= most else text[:most] + "..."
