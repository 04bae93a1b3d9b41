"""Decision rule of a sweep: written once before the first step. Every later change is an amendment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import MISSING

from harness.config.schema.decision import Gate, RuleConfig, Stopping
from harness.config.schema.run import Config
from harness.core import atomic_files
from harness.core.errors import UserError, did_you_mean
from harness.core.hashing import flatten, hash_json, to_plain
from harness.records.paths import SweepDir
from harness.records.sweep import ledger

LATER_DEFAULTS = {f"rule.{key}": value for key, value in to_plain(RuleConfig()).items() if key != "control"}
"""Values that a rule of an earlier version, which lacks the key, was judged by."""


def set_default_control(configs: Sequence[Config]) -> None:
    """Make the first variant the control of every rule that names none."""
    for config in configs:
        config.rule.control = config.rule.control or configs[0].variant.name


def set_default_domains(sweep: SweepDir, configs: Sequence[Config]) -> None:
    """Name the domains of the written rule, or else the control's sources, in every rule that names none, if
    there are validation sets: these do not decide unless a rule names them. Raises UserError for a domain
    that no run is evaluated on."""
    control = next((c for c in configs if c.variant.name == c.rule.control), configs[0])
    if any(config.evaluation.sets for config in configs):
        domains = _frozen_rule(sweep).get("domains") or sorted(control.data.sources)
        for config in configs:
            config.rule.domains = config.rule.domains or domains
    if control.data.kind == "text" and not control.roster.planned:
        _check_domains(control)


def _check_domains(config: Config) -> None:
    domains = {**config.data.sources, **config.evaluation.sets}
    for name in config.rule.domains:
        if name not in domains:
            hint = did_you_mean(name, domains)
            raise UserError(
                f"rule.domains={config.rule.domains}: {name} is none of data.sources and evaluation.sets; "
                f"{hint}"
            )


def check_control(sweep: SweepDir, configs: Sequence[Config]) -> None:
    """Raise UserError if there are several variants, and the control is neither among them nor on disk."""
    rule = configs[0].rule
    trained = {path.parent.name for path in sweep.path.glob("*/*/seed*")}
    variants = {config.variant.name for config in configs}
    if len(variants) > 1 and rule.control not in variants | trained:
        hint = did_you_mean("", variants)
        raise UserError(f"rule.control={rule.control}: not among the variants of this sweep; {hint}")


def learn_drift(sweep: SweepDir, configs: Sequence[Config]) -> None:
    """Set the drift of every rule from the finished sweeps that `rule.drift_from` names, or from the written
    rule if it named the same ones. Raises UserError if they do not tell it."""
    sources, rule = list(configs[0].rule.drift_from), configs[0].rule
    if not sources:
        return
    frozen = _frozen_rule(sweep)
    if frozen.get("drift_from") == sources:
        sd, df = frozen["drift"], frozen["drift_df"]
    else:
        from harness.compare.drift_library import read_drift  # scipy takes a third of a second to import

        touches = [node for config in configs for node in config.variant.touches]
        drift = read_drift(sources, touches)
        sd, df = drift.sd, drift.df
    if rule.drift not in (None, sd):
        conflict = f"rule.drift={rule.drift:g}: rule.drift_from sets it to {sd:.3g}"
        raise UserError(f"{conflict}; leave one of the two out")
    for config in configs:
        config.rule.drift, config.rule.drift_df = sd, df


def compared_variants(configs: Sequence[Config]) -> list[str]:
    """Return the variants of the scales at which the control is trained; all if it is trained at none. The
    other runs have no sibling that they could be compared with."""
    control = configs[0].rule.control
    scales = {config.scale.name for config in configs if config.variant.name == control}
    return [config.variant.name for config in configs if not scales or config.scale.name in scales]


def write_rule(
    sweep: SweepDir, config: Config, variants: Sequence[str], tuning: Mapping[str, Any] | None = None
) -> str | None:
    """Write the rule if the sweep has none yet, else record how this one deviates. Returns the deviation. The
    rule includes the family of treatments for the multiplicity correction (all `variants` but the control),
    the gate's margins and the tuning result of each variant."""
    content = _rule_content(config, variants, tuning or {})
    entries = ledger.read_valid(sweep, "rule")
    fixed = _without_hash(atomic_files.read_json(sweep.rule))
    if not entries:
        if fixed is None:
            fixed = content
            atomic_files.write_json(sweep.rule, fixed | {"hash": hash_json(fixed)})
        ledger.append(sweep, "rule", fixed | {"hash": hash_json(fixed)})
    _add_tuning(sweep, tuning or {})
    if fixed is None or (entries and hash_json(fixed) != entries[0]["content"]["hash"]):
        return _restore_rule(sweep, entries[0]["content"])
    return _record_amendment(sweep, fixed, content)


def _frozen_rule(sweep: SweepDir) -> dict[str, Any]:
    """Return the written rule; empty if there is none."""
    return (_without_hash(atomic_files.read_json(sweep.rule)) or {}).get("rule", {})


def _without_hash(rule: Any) -> dict[str, Any] | None:
    """Return a rule without its hash; None if the two do not match."""
    content = {key: value for key, value in rule.items() if key != "hash"} if isinstance(rule, dict) else {}
    return content if content and rule.get("hash") == hash_json(content) else None


def _restore_rule(sweep: SweepDir, rule: dict[str, Any]) -> str:
    """Write the rule of the ledger, which is the original one, to rule.json. Returns a sentence about it."""
    if _without_hash(rule) is None:  # an earlier version kept the hash alone
        return f"{sweep.rule} was changed or lost after it was hashed"
    ledger.append(sweep, "damage", {"file": sweep.rule.name})
    atomic_files.write_json(sweep.rule, rule)
    return f"{sweep.rule} was changed or lost after it was hashed; it is written again as the ledger holds it"


def frozen_stopping(sweep: SweepDir) -> Stopping:
    """Return the stopping of the written rule, which a later command cannot change."""
    return Stopping(ledger.read_valid(sweep, "rule")[0]["content"]["rule"]["stopping"])


def _add_tuning(sweep: SweepDir, tuning: Mapping[str, Any]) -> None:
    """Write the tuning results of variants that were added later into the ledger."""
    entries = [*ledger.read_valid(sweep, "rule")[:1], *ledger.read_valid(sweep, "tuning")]
    recorded = {variant for entry in entries for variant in entry["content"].get("tuning", {})}
    if new := {variant: result for variant, result in tuning.items() if variant not in recorded}:
        ledger.append(sweep, "tuning", {"tuning": new})


def _rule_content(
    config: Config, variants: Sequence[str], tuning: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    family = sorted({*variants} - {config.rule.control})
    content = {"rule": to_plain(config.rule) | {"family": family}}
    content |= {"gate": to_plain(config.gate)} if config.gate.name is not Gate.none else {}
    return content | ({"tuning": dict(tuning)} if tuning else {})


def _record_amendment(sweep: SweepDir, fixed: dict[str, Any], content: dict[str, Any]) -> str | None:
    before, now = flatten(fixed), flatten(content)
    keys = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
    keys -= {key for key in keys - before.keys() if now[key] == LATER_DEFAULTS.get(key, MISSING)}
    changed = sorted(key for key in keys if key != "rule.family" and not key.startswith("tuning."))
    hashes = {entry["content"].get("hash") for entry in ledger.read_valid(sweep, "amendment")}
    if not changed or hash_json(content) in hashes:
        return None
    detail = "; ".join(f"{key}: {before.get(key)!r} became {now.get(key)!r}" for key in changed)
    ledger.append(sweep, "amendment", {"detail": detail, "hash": hash_json(content)} | content)
    return f"the rule that was written before the first step applies; recorded as a deviation: {detail}"
