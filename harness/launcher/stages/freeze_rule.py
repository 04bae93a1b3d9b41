"""The decision rule, written down once before the first step; what changes later is an amendment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.config.schema.decision import Gate, Stopping
from harness.config.schema.run import Config
from harness.core import atomic_files
from harness.core.errors import UserError, did_you_mean
from harness.core.hashing import flatten, hash_json, to_plain
from harness.records.paths import SweepDir
from harness.records.sweep import ledger


def set_default_control(configs: Sequence[Config]) -> None:
    """A rule without a control takes the first variant."""
    for config in configs:
        config.rule.control = config.rule.control or configs[0].variant.name


def check_control(sweep: SweepDir, configs: Sequence[Config]) -> None:
    """Raises UserError where variants would be trained that nothing can be compared with."""
    rule = configs[0].rule
    trained = {path.parent.name for path in sweep.path.glob("*/*/seed*")}
    variants = {config.variant.name for config in configs}
    if len(variants) > 1 and rule.control not in variants | trained:
        raise UserError(
            f"rule.control={rule.control}: not among the variants of this sweep; {did_you_mean('', variants)}"
        )


def compared_variants(configs: Sequence[Config]) -> list[str]:
    """The variants of scales at which the control is trained as well, where it is trained at all: what has
    no sibling is compared with nothing."""
    control = configs[0].rule.control
    scales = {config.scale.name for config in configs if config.variant.name == control}
    return [config.variant.name for config in configs if not scales or config.scale.name in scales]


def write_rule(
    sweep: SweepDir, config: Config, variants: Sequence[str], tuning: Mapping[str, Any] | None = None
) -> str | None:
    """Fix the rule if none is fixed yet; else record in words how this one differs, and return that.

    The family, over which several treatments are corrected for, is part of it (all `variants` but the
    control), and so are the gate's margins and, by variant, how learning rates were tuned.
    """
    content = _content(config, variants, tuning or {})
    entries = ledger.read_valid(sweep, "rule")
    fixed = _as_hashed(atomic_files.read_json(sweep.rule))
    if not entries:
        if fixed is None:
            fixed = content
            atomic_files.write_json(sweep.rule, fixed | {"hash": hash_json(fixed)})
        ledger.append(sweep, "rule", fixed | {"hash": hash_json(fixed)})
    _add_tuning(sweep, tuning or {})
    if fixed is None or (entries and hash_json(fixed) != entries[0]["content"]["hash"]):
        return _restore(sweep, entries[0]["content"])
    return _amend(sweep, fixed, content)


def _as_hashed(rule: Any) -> dict[str, Any] | None:
    """A rule without its hash; None where it is not as it was when that was taken."""
    content = {key: value for key, value in rule.items() if key != "hash"} if isinstance(rule, dict) else {}
    return content if content and rule.get("hash") == hash_json(content) else None


def _restore(sweep: SweepDir, rule: dict[str, Any]) -> str:
    """rule.json as the ledger holds it, which is the rule that was fixed. Returns that in words."""
    if _as_hashed(rule) is None:  # an earlier version kept the hash alone
        return f"{sweep.rule} was changed or lost after it was hashed"
    ledger.append(sweep, "damage", {"file": sweep.rule.name})
    atomic_files.write_json(sweep.rule, rule)
    return f"{sweep.rule} was changed or lost after it was hashed; it is written again as the ledger holds it"


def frozen_stopping(sweep: SweepDir) -> Stopping:
    """The stopping that was written down, whatever a later command says."""
    return Stopping(ledger.read_valid(sweep, "rule")[0]["content"]["rule"]["stopping"])


def _add_tuning(sweep: SweepDir, tuning: Mapping[str, Any]) -> None:
    """Variants that came later were tuned later: the ledger holds what was found for them."""
    entries = [*ledger.read_valid(sweep, "rule")[:1], *ledger.read_valid(sweep, "tuning")]
    known = {variant for entry in entries for variant in entry["content"].get("tuning", {})}
    if new := {variant: found for variant, found in tuning.items() if variant not in known}:
        ledger.append(sweep, "tuning", {"tuning": new})


def _content(config: Config, variants: Sequence[str], tuning: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    family = sorted({*variants} - {config.rule.control})
    content = {"rule": to_plain(config.rule) | {"family": family}}
    content |= {"gate": to_plain(config.gate)} if config.gate.name is not Gate.none else {}
    return content | ({"tuning": dict(tuning)} if tuning else {})


def _amend(sweep: SweepDir, fixed: dict[str, Any], content: dict[str, Any]) -> str | None:
    before, now = flatten(fixed), flatten(content)
    keys = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
    changed = sorted(key for key in keys if key != "rule.family" and not key.startswith("tuning."))
    known = {entry["content"].get("hash") for entry in ledger.read_valid(sweep, "amendment")}
    if not changed or hash_json(content) in known:
        return None
    detail = "; ".join(f"{key}: {before.get(key)!r} became {now.get(key)!r}" for key in changed)
    ledger.append(sweep, "amendment", {"detail": detail, "hash": hash_json(content)} | content)
    return f"the rule that was fixed before the first step stands; recorded as a deviation: {detail}"
