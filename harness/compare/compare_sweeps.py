"""Verdict over the variants of one sweep against a variant of another, such as last week's control."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from harness.compare.inputs.noise_floor import identical_variants
from harness.compare.inputs.run_records import RunRecord
from harness.compare.judge import judge, read_inputs
from harness.compare.results.comparison import Comparison, Deviation
from harness.core.errors import UserError, did_you_mean
from harness.records.paths import SweepDir

OTHER_CONTROL = "the control is {name} of another sweep, which the rule of this one did not name"


def compare_with_control_of(
    sweep: SweepDir, control_sweep: SweepDir, variant: str | None = None
) -> Comparison:
    """Return the verdict of a sweep with the control taken from another sweep.

    variant: the variant of the other sweep; its own control by default. Runs are paired by scale and seed,
    and every check applies: other code is MIXED_CODE, other data DATA_ORDER_MISMATCH. The control that the
    sweep has itself becomes a treatment, unless it is the same variant. Raises UserError if the other sweep
    has no such variant, and if the two have no scale in common.
    """
    inputs, control_inputs = read_inputs(sweep), read_inputs(control_sweep)
    name = variant or control_inputs.rule.control
    controls = [run for run in control_inputs.runs if run.provenance.variant == name]
    if not controls:
        variants = sorted({run.provenance.variant for run in control_inputs.runs})
        raise UserError(f"{control_sweep.path}: has no runs of '{name}'; {did_you_mean(name, variants)}")
    scales, other_scales = _scales(inputs.runs), _scales(controls)
    if not scales & other_scales:
        raise UserError(
            f"{sweep.path} has the scales {', '.join(sorted(scales))}, {control_sweep.path} of {name} "
            f"{', '.join(sorted(other_scales))}: none is in both. Train one in both."
        )
    control = f"{name} of {control_sweep.path.name}"
    control_runs = [
        _renamed(run, control, control_sweep) for run in controls if run.provenance.scale in scales
    ]
    runs = [*control_runs, *inputs.runs]
    treatments = {run.provenance.variant for run in inputs.runs} - identical_variants(runs, control)
    rule = dataclasses.replace(inputs.rule, control=control, family=tuple(sorted(treatments)))
    deviations = [*inputs.deviations, Deviation("other_control", OTHER_CONTROL.format(name=name))]
    # The gate's measurements are of the sweep's own control.
    return judge(
        dataclasses.replace(inputs, rule=rule, runs=runs, deviations=deviations, gate=None, timing={})
    )


def _scales(runs: Sequence[RunRecord]) -> set[str]:
    return {run.provenance.scale for run in runs}


def _renamed(run: RunRecord, control: str, control_sweep: SweepDir) -> RunRecord:
    """Return a run under the name of the control, and a path that no run of the sweep has."""
    provenance = dataclasses.replace(run.provenance, variant=control)
    return dataclasses.replace(run, provenance=provenance, path=f"../{control_sweep.path.name}/{run.path}")
