"""Check before the first step that the verdict could judge the pairs of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.compare.inputs.run_terms import RunTerms, given_flags, make_terms
from harness.compare.verdict.checks import REMEDIES
from harness.compare.verdict.flags import EXPLANATIONS
from harness.config.pair_check import describe_differences
from harness.config.run_identity import config_difference
from harness.config.schema.decision import Axis, Stopping
from harness.core.errors import UserError
from harness.core.hashing import is_covered_by, to_plain
from harness.launcher.runs import Block, Run
from harness.records.paths import RunDir
from harness.records.run.config_file import read_config
from harness.records.run.provenance import read_provenance

CAUSES: Mapping[str, tuple[str, ...]] = {
    "UNEQUAL_TOKENS": ("scale.tokens", "scale.batch", "data.sequence_length"),
    "UNMATCHED": ("scale.tokens", "scale.batch", "model"),
    "SCHEDULE_MISMATCH": ("schedule", "scale", "data.sequence_length"),
    "DATA_ORDER_MISMATCH": ("data", "data_seed", "scale.batch"),
    "EVAL_SET_MISMATCH": ("data", "evaluation.tokens", "evaluation.sets", "evaluation.decontaminate"),
    "HOT_LR_LOOK": ("schedule.name", "schedule.cooldown"),
}
"""Config nodes that can cause each flag, by which a message names the difference."""


def check_comparable(blocks: Sequence[Block]) -> None:
    """Raise UserError for a pair with a run left to train that the verdict would find INVALID. Writes
    nothing. A block without the control has no pair, unless an earlier command trained it; whether the files
    have changed since is checked elsewhere (`same_data`)."""
    _check_match(blocks)
    for block in blocks:
        control = next((run for run in block.runs if _is_control(run)), None)
        reference = control or _stored_control(block)
        for run in block.runs:
            if reference is None or run.variant == reference.variant:
                continue
            flags = launch_flags(reference, run)
            if not control:
                flags = {flag for flag in flags if _differing_keys(flag, reference, run)}
            if flags:
                _refuse_unless_ended(block.name, min(flags), reference, run)


def _check_match(blocks: Sequence[Block]) -> None:
    """Raise UserError for a rule that makes FLOPs or device-seconds equal where it could not be judged."""
    rule, scales = blocks[0].runs[0].config.rule, {block.scale for block in blocks}
    if rule.match is Axis.tokens or all(run.ended for block in blocks for run in block.runs):
        return
    if rule.axis not in (Axis.tokens, rule.match):
        raise UserError(
            f"rule.axis={rule.axis.value}: rule.match={rule.match.value} makes another amount equal, so the "
            "losses say nothing on that axis. Leave rule.axis out."
        )
    if rule.match is Axis.seconds and len(scales) > 1:
        raise UserError(
            f"rule.match=seconds: step times are measured at one scale, but this sweep has {len(scales)}. "
            "Train one scale a sweep."
        )


def _is_control(run: Run) -> bool:
    return run.variant == run.config.rule.control


def _stored_control(block: Block) -> Run | None:
    """Return the control that an earlier command has trained; None if there is none."""
    run = block.runs[0]
    directory = RunDir(run.dir.path.parents[1] / run.config.rule.control / run.dir.path.name)
    provenance = read_provenance(directory)
    try:
        return Run(read_config(directory.config), provenance.facts, directory) if provenance else None
    except UserError:
        return None  # damaged: the comparison reports it


def launch_flags(control: Run, treatment: Run) -> set[str]:
    """Return the blocking flags that the verdict on a pair would raise, from what its runs are given."""
    a, b, rule = _terms(control), _terms(treatment), control.config.rule
    flags = given_flags(a, b, rule.match, rule.stopping is Stopping.looks)
    decayed = control.facts.ends_decayed and treatment.facts.ends_decayed
    return flags if decayed else flags | {"HOT_LR_LOOK"}


def _terms(run: Run) -> RunTerms:
    config = run.config
    plain = {"schedule": to_plain(config.schedule)}
    return make_terms(run.facts, plain, config.variant.touches, config.data_seed, run.tokens, from_log=False)


def _refuse_unless_ended(block: str, flag: str, control: Run, treatment: Run) -> None:
    """Raise UserError for a pair, unless nothing of it is left to train."""
    if control.ended and treatment.ended:
        return
    raise UserError(
        f"{block}: the verdict could not compare '{treatment.variant}' with '{control.variant}' "
        f"({_cause(flag, control, treatment)}): {EXPLANATIONS[flag]} ({flag}). "
        f"{_way_out(flag, control, treatment)}"
    )


def _differing_keys(flag: str, control: Run, treatment: Run) -> dict[str, tuple[Any, Any]]:
    """Return the differing keys that can cause a flag, with the values of treatment and control."""
    differing = config_difference(treatment.config, control.config)
    return {key: values for key, values in differing.items() if is_covered_by(key, [*CAUSES[flag]])}


def _cause(flag: str, control: Run, treatment: Run) -> str:
    """Return the keys that cause a flag, with both values; without any, what causes it in both."""
    if keys := _differing_keys(flag, control, treatment):
        return describe_differences(keys)
    if flag == "HOT_LR_LOOK":
        schedule = control.config.schedule
        return f"schedule.name={schedule.name}, schedule.cooldown={schedule.cooldown:g}"
    return "with equal keys, since " + ("the FLOPs a token differ" if flag == "UNMATCHED" else "files differ")


def _way_out(flag: str, control: Run, treatment: Run) -> str:
    """Return what to change; for FLOPs the number of tokens that would match."""
    if flag == "UNMATCHED" and control.config.rule.match is Axis.flops:
        tokens = round(control.flops / treatment.facts.flops_per_token)
        return f"Give '{treatment.variant}' scale.tokens={tokens}."
    return REMEDIES[flag]
