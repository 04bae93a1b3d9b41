"""The decision rule, written down once before the first step; what changes later is an amendment."""

from __future__ import annotations

from collections.abc import Sequence

from harness.config.errors import UserError, nearest
from harness.config.identity import digest, plain
from harness.config.schema import Config, RuleConfig
from harness.records import atomic, ledger
from harness.records.layout import SweepDir


def complete(configs: Sequence[Config]) -> None:
    """A rule without a control takes the first variant."""
    for config in configs:
        config.rule.control = config.rule.control or configs[0].variant.name


def check(sweep: SweepDir, configs: Sequence[Config]) -> None:
    """Raises UserError where variants would be trained that nothing can be compared with."""
    rule = configs[0].rule
    trained = {path.parent.name for path in sweep.path.glob("*/*/seed*")}
    variants = {config.variant.name for config in configs}
    if len(variants) > 1 and rule.control not in variants | trained:
        raise UserError(
            f"rule.control={rule.control}: not among the variants of this sweep; {nearest('', variants)}"
        )


def write_down(sweep: SweepDir, rule: RuleConfig, variants: Sequence[str]) -> str | None:
    """Fix the rule if none is fixed yet; else record in words how this one differs, and return that.

    The family, over which several treatments are corrected for, is part of it: all but the control.
    """
    content = plain(rule) | {"family": sorted({*variants} - {rule.control})}
    entries = ledger.read(sweep, "rule")
    fixed = atomic.read_json(sweep.rule)
    if not entries:
        atomic.write_json(sweep.rule, {"rule": content, "hash": digest(content)})
        ledger.append(sweep, "rule", {"hash": digest(content), "rule": content})
        return None
    if not isinstance(fixed, dict) or digest(fixed.get("rule")) != entries[0]["content"]["hash"]:
        return f"{sweep.rule} was changed or lost after it was hashed; the ledger holds the rule as it was"
    return _amend(sweep, fixed["rule"], content)


def _amend(sweep: SweepDir, fixed: dict, content: dict) -> str | None:
    changed = sorted(key for key in content if key != "family" and content[key] != fixed.get(key))
    known = {entry["content"].get("hash") for entry in ledger.read(sweep, "amendment")}
    if not changed or digest(content) in known:
        return None
    detail = "; ".join(f"rule.{key}: {fixed.get(key)!r} became {content[key]!r}" for key in changed)
    ledger.append(sweep, "amendment", {"detail": detail, "hash": digest(content), "rule": content})
    return f"the rule that was fixed before the first step stands; recorded as a deviation: {detail}"
