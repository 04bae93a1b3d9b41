"""Decision rule that was fixed before the first step, and every deviation from it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from harness.compare.inputs.json_values import dict_or_empty, number_or_none, read_json_object
from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.comparison import Deviation, Rule
from harness.config.schema.decision import Axis
from harness.core.hashing import hash_json
from harness.records.paths import SweepDir
from harness.records.sweep import ledger

AMENDMENTS = ("amendment", "amend", "replan", "deviation")
"""Kinds of ledger entries that change the plan."""
RULE_DAMAGE = ("rule_edited", "rule_damaged")
"""Kinds of deviations after which rule.json does not hold the rule that was fixed."""
VERDICT_KEYS = (
    "control", "positive_control", "domains", "margin", "alpha", "stopping",
    "target", "drift", "drift_df", "bet_margin", "match", "axis", "margin_nats",
)  # fmt: skip
"""Keys of a rule that change a verdict."""


def read_rule(sweep: SweepDir, runs: Sequence[RunRecord]) -> tuple[Rule, list[Deviation], dict[str, Any]]:
    """Read the frozen rule, the deviations from it, and the learning-rate tuning by variant."""
    content = read_json_object(sweep.rule)
    inner = content.get("rule")
    frozen: dict[str, Any] = inner if isinstance(inner, dict) else content
    config_rule = next((run.config["rule"] for run in runs if isinstance(run.config.get("rule"), dict)), {})
    deviations = _deviations(sweep, content, frozen, runs)
    return _rule(frozen or config_rule, runs, content), deviations, _read_tuning(sweep, content)


def _read_tuning(sweep: SweepDir, content: Mapping[str, Any]) -> dict[str, Any]:
    """Read the tuning of each variant. Tuning done after the rule was fixed is in the ledger."""
    tuning_by_variant: dict[str, Any] = {}
    for holder in (content, *(entry["content"] for entry in ledger.read(sweep, "tuning"))):
        for variant, entry in dict_or_empty(dict_or_empty(holder).get("tuning")).items():
            if isinstance(entry, dict):
                tuning_by_variant.setdefault(variant, entry)
    return tuning_by_variant


def gate_margins(sweep: SweepDir) -> dict[str, float] | None:
    """Return the numeric margins of `gate` in rule.json; None if the experiment has no gate."""
    gate = read_json_object(sweep.rule).get("gate")
    if not isinstance(gate, dict) or gate.get("name") == "none":
        return None
    return {key: number for key, value in gate.items() if (number := number_or_none(value)) is not None}


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
        margin=_number_between(node.get("margin"), 0.01, 0.0, 1.0),
        alpha=_number_between(node.get("alpha"), 0.05, 0.0, 0.5),
        stopping=str(node.get("stopping") or "none"),
        family=tuple(map(str, family)),
        hash=hash_json(content) if content else "",
        target=_positive_or_none(node.get("target")),
        drift=_positive_or_none(node.get("drift")),
        drift_df=_positive_or_none(node.get("drift_df")) or 3.0,
        bet_margin=_number_between(node.get("bet_margin"), 0.05, 0.0, 1.0),
        match=_axis(node.get("match")),
        axis=_axis(node.get("axis")),
        margin_nats=_positive_or_none(node.get("margin_nats")),
    )


def _deviations(
    sweep: SweepDir, content: Mapping[str, Any], frozen: Mapping[str, Any], runs: Sequence[RunRecord]
) -> list[Deviation]:
    deviations = [] if content else [Deviation("no_rule", "no rule was fixed before the first step")]
    if not content and os.path.lexists(sweep.rule):
        deviations = [Deviation("rule_damaged", "rule.json cannot be read; repeat the sweep command")]
    deviations += _hash_deviations(sweep, content, frozen)
    deviations += _config_deviations(frozen, runs) if content else []
    for position in ledger.edited_positions(sweep):
        detail = f"entry {position} of the ledger was changed after it was written"
        deviations.append(Deviation("ledger_edited", detail))
    if count := ledger.unreadable_lines(sweep):
        detail = "a line" if count == 1 else f"{count} lines"
        detail += (
            " of the ledger cannot be read (damaged, or cut short by a kill), so what it records is unknown"
        )
        deviations.append(Deviation("ledger_unreadable", detail))
    for entry in ledger.read(sweep):
        if entry["kind"] in AMENDMENTS:
            deviations.append(Deviation(entry["kind"], f"{entry['time']}: {_entry_text(entry['content'])}"))
    return deviations


def _hash_deviations(
    sweep: SweepDir, content: Mapping[str, Any], frozen: Mapping[str, Any]
) -> list[Deviation]:
    """Report a rule.json that no longer matches the hash recorded in it or in the ledger. The hash covers all
    other keys, gate and tuning included; if there are none but the rule, its hash alone is accepted too."""
    hashed = {key: value for key, value in content.items() if key != "hash"}
    accepted = {hash_json(hashed), hash_json(content)}
    accepted |= {hash_json(frozen)} if hashed.keys() <= {"rule"} else set()
    entries = [entry["content"] for entry in ledger.read(sweep, "rule")[:1]]
    claims = [holder.get("hash") for holder in (content, *entries) if isinstance(holder, Mapping)]
    if any(isinstance(claim, str) and claim not in accepted for claim in claims):
        return [Deviation("rule_edited", "rule.json was changed after its hash was taken")]
    return []


def _config_deviations(frozen: Mapping[str, Any], runs: Sequence[RunRecord]) -> list[Deviation]:
    """Report runs that were launched under another rule."""
    differences = {}
    for run in runs:
        config_rule = run.config.get("rule") or {}
        for key in VERDICT_KEYS if isinstance(config_rule, dict) else ():
            if key in frozen and config_rule.get(key) != frozen[key]:
                differences.setdefault(key, (run.path, config_rule.get(key)))
    return [
        Deviation("other_rule", f"{path} was launched with rule.{key} = {value!r}, not {frozen[key]!r}")
        for key, (path, value) in differences.items()
    ]


def _positive_or_none(value: Any) -> float | None:
    number = number_or_none(value)
    return number if number is not None and 0 < number < math.inf else None


def _axis(value: Any) -> Axis:
    """Return the axis of that name; tokens for anything else."""
    return next((axis for axis in Axis if axis.value == value), Axis.tokens)


def _number_between(value: Any, default: float, low: float, high: float) -> float:
    """Return the value if it is a number inside (low, high), else the default."""
    number = number_or_none(value)
    return number if number is not None and low < number < high else default


def _entry_text(content: Any, max_letters: int = 200) -> str:
    """Return the `detail` of a ledger entry, or its whole content, at most `max_letters` long."""
    text = str(content.get("detail", content) if isinstance(content, dict) else content)
    return text if len(text) <= max_letters else text[:max_letters] + "..."
