"""The table that stands above every verdict: what each variant was given at each scale."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.compare.inputs.lr_tuning import Curve
from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.context_types import FairnessRow
from harness.compare.verdict.flags import tuning_flags, unequal
from harness.records.run.provenance import Facts


def fairness_rows(
    runs: Sequence[RunRecord], scales: Sequence[str], control: str, tuning: Mapping[str, Any]
) -> tuple[FairnessRow, ...]:
    """One row a scale and variant, the control first."""
    rows = []
    for scale in scales:
        here = [run for run in runs if run.provenance.scale == scale]
        reference = next((run for run in here if run.provenance.variant == control), None)
        names = sorted({run.provenance.variant for run in here}, key=lambda name: (name != control, name))
        for name in names:
            own = [run for run in here if run.provenance.variant == name]
            rows.append(_row(own, reference, control, tuning))
    return tuple(rows)


def _row(
    runs: Sequence[RunRecord], reference: RunRecord | None, control: str, tuning: Mapping[str, Any]
) -> FairnessRow:
    first, base = runs[0], reference.provenance.facts if reference else None
    provenance, facts = first.provenance, first.provenance.facts
    codes = sorted({run.provenance.code_hash for run in runs})
    shared = shared_examples(facts, base) if base else None
    return FairnessRow(
        scale=provenance.scale,
        variant=provenance.variant,
        control=provenance.variant == control,
        seeds=len(runs),
        parameters=facts.parameters,
        non_embedding=facts.non_embedding,
        flops_per_token=facts.flops_per_token,
        executed_flops_per_token=facts.executed_flops_per_token,
        parameters_ratio=_ratio(facts.non_embedding, base and base.non_embedding),
        flops_ratio=_ratio(facts.flops_per_token, base and base.flops_per_token),
        tokens=provenance.tokens,
        steps=facts.steps,
        schedule=_schedule(first.config),
        horizon=facts.steps,
        tokenizer=_tokenizer(first.config.get("data") or {}),
        data=facts.data_fingerprint,
        evaluation=facts.eval_fingerprint,
        learning_rate=_number((first.config.get("optimizer") or {}).get("learning_rate")),
        tuning=_tuning(tuning.get(provenance.variant)),
        shared=shared_share(facts, base) if base else None,
        code=codes[0] if len(codes) == 1 else "mixed",
        touches=tuple(provenance.touches),
        flags=tuple(sorted(_flags(first, reference, tuning))),
        curve=_curve(tuning.get(provenance.variant)),
        mix=_mix(facts),
        shared_examples=shared,
        parting=None if base is None or shared is None else _parting(facts, base),
        base=_base(runs),
        trainable=facts.trainable,
        active_parameters=facts.active_parameters,
    )


def shared_share(facts: Facts, base: Facts) -> float | None:
    """Share of a variant's parameters that the control has by the same path and shape.

    Those start bitwise equal, if both are drawn or start from one checkpoint. None where paths are unknown.
    """
    if (facts.base or {}).get("checksum") != (base.base or {}).get("checksum"):
        return 0.0
    sizes = {path: _size(shape) for path, shape in facts.paths.items()}
    total = sum(sizes.values())
    common = sum(size for path, size in sizes.items() if base.paths.get(path) == facts.paths[path])
    return common / total if total else None


def shared_examples(facts: Facts, base: Facts) -> float | None:
    """Share of a variant's examples that the control reads too: exact, since of each source the run that
    takes fewer takes what the other takes first.

    None where both read the same, where the numbers are unknown, and where the sources, the tokenizer or
    the windows differ (the held-out tokens tell).
    """
    same = facts.data_fingerprint == base.data_fingerprint
    if same or facts.eval_fingerprint != base.eval_fingerprint or not facts.draws:
        return None
    both = sum(min(drawn, base.draws.get(source, 0)) for source, drawn in facts.draws.items())
    return both / sum(facts.draws.values())


def _flags(run: RunRecord, reference: RunRecord | None, tuning: Mapping[str, Any]) -> set[str]:
    if reference is None or run is reference:
        return set()
    facts, base = run.provenance.facts, reference.provenance.facts
    flags = tuning_flags(tuning, reference.provenance.variant, run.provenance.variant, ())
    if unequal(base.parameters, facts.parameters):
        flags.add("UNEQUAL_PARAMS")
    if unequal(base.flops_per_token, facts.flops_per_token):
        flags.add("UNEQUAL_FLOPS")
    return flags


def _parting(facts: Facts, base: Facts) -> int:
    """The first step of the first mix that the two have not in common."""
    pairs = itertools.zip_longest(facts.mixes, base.mixes)
    parted = next(([*filter(None, pair)] for pair in pairs if pair[0] != pair[1]), [])
    return min((first for first, _ in parted), default=0)


def _mix(facts: Facts) -> str:
    """`code 50 %, prose 50 %; from step 104 code 75 %, prose 25 %`."""
    return "; ".join(
        (f"from step {first} " if first else "") + _shares(counts) for first, counts in facts.mixes
    )


def _shares(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {100 * count / sum(counts.values()):.3g} %" for name, count in counts.items())


def _schedule(config: Mapping[str, Any]) -> str:
    schedule = config.get("schedule") or {}
    parts = [
        f"{key} {schedule[key]:g}" for key in ("warmup", "cooldown", "floor") if _number(schedule.get(key))
    ]
    return ", ".join([str(schedule.get("name", "")), *parts])


def _tokenizer(data: Mapping[str, Any]) -> str:
    """Empty for images."""
    return "" if data.get("kind") == "images" else str(data.get("tokenizer", ""))


def _tuning(entry: Any) -> str:
    """`lr 0.0031 of 5 points, seed 1000003`, as far as rule.json says so."""
    if not isinstance(entry, Mapping):
        return "not tuned"
    rate, points, seed = _number(entry.get("learning_rate")), entry.get("points", "?"), entry.get("seed")
    said = f"{points} points" if rate is None else f"lr {rate:.2g} of {points} points"
    said += "" if seed is None else f", seed {seed}"
    return said + (", optimum at the edge" if entry.get("edge") else "")


def _curve(entry: Any) -> Curve:
    """The (learning rate, loss) pairs of rule.json by rising rate; what is no pair of numbers is left out."""
    pairs = entry.get("curve") if isinstance(entry, Mapping) else None
    listed = pairs if isinstance(pairs, list) else []
    known = {
        rate: _number(pair[1])
        for pair in listed
        if isinstance(pair, list) and len(pair) == 2 and (rate := _number(pair[0])) is not None
    }
    return tuple(sorted(known.items()))


def _base(runs: Sequence[RunRecord]) -> str:
    """`finetune_parents/*/mha/seed*@122`: a * for the scale of the runs, and for each one's seed."""
    scale = f"/{runs[0].provenance.scale}/"
    names = (str((run.provenance.facts.base or {}).get("name", "")) for run in runs)
    alike = {re.sub(r"/seed\d+(?=[@/])", "/seed*", name.replace(scale, "/*/", 1)) for name in names}
    return ", ".join(sorted(alike))


def _ratio(value: float, base: float | None) -> float | None:
    return value / base if base else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _size(shape: Sequence[int]) -> int:
    size = 1
    for axis in shape:
        size *= axis
    return size
