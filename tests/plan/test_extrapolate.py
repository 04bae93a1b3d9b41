"""From pair to bet: the runs of a plan, what is saved there, and how it is shown."""

import dataclasses
import io
import itertools
import json
import math

import pytest
from rich.console import Console

from harness import cli
from harness.cli import make_plan
from harness.cli.views.plan_extrapolation import extrapolation_section
from harness.compare.results.to_json import to_json
from harness.compare.results.verdict_types import Decision
from harness.core.errors import UserError
from harness.core.number_format import format_interval
from harness.launcher import sweep
from harness.plan.extrapolation.extrapolate import Extrapolation, extrapolate
from harness.plan.predict import EvidenceKind, PlanEstimate
from harness.report.tables.plan_sections import print_sections
from tests.cli.test_plan import facts_of
from tests.plan.evidence import AT, DECADE, pair_evidence, planned_runs, treatment_evidence
from tests.report.test_page import Reader
from tests.schemas.valid import check_output


def shown(bets: Extrapolation, width: int = 120) -> str:
    output = io.StringIO()
    print_sections([extrapolation_section(bets)], Console(width=width, force_terminal=False, file=output))
    return output.getvalue()


def test_rows_are_the_scales_of_the_plan_and_the_control_pays():
    evidence = pair_evidence(treatment_evidence([0.1, 0.11, 0.1, 0.11]))
    runs, planned = planned_runs("6t/a", "1t/b", "1t/a", "10t/c", "2t/b", flops=1e4)
    bets = extrapolate(evidence, runs, planned)
    rows = {bet.scale: bet for bet in bets.rows}
    assert rows.keys() == {"6t", "1t", "2t"}
    assert [rows[scale].sibling for scale in ("6t", "1t", "2t")] == [False, True, False]
    assert (rows["1t"].run, rows["2t"].days_saved) == ("1t/a/seed0", None), "no control, no days of it"
    assert bets.notes == ("10t/c/seed0: the evidence does not compare its variant.",)
    assert rows["6t"].decades == pytest.approx(math.log10(1e13 / math.exp(AT[-1])))
    assert rows["6t"].e_folds == pytest.approx(rows["6t"].decades * DECADE)
    assert rows["6t"].tags == ("EXTRAPOLATION",)


@pytest.mark.parametrize(("level", "se"), [(0.0, 0.05), (0.3, 0.001), (-0.3, 0.001)])
def test_what_is_saved_is_the_corners_of_days_and_k(level, se):
    runs, planned = planned_runs("6t/a", flops=1e6)
    (bet,) = extrapolate(pair_evidence(treatment_evidence([level] * 4, se)), runs, planned).rows
    ends = {
        name: [days * (1 - 1 / k) for days, k in itertools.product((8.0, 13.0), (bet.k.low, bet.k.high))]
        for name in ("low", "high")
    }
    assert bet.days_saved.value == pytest.approx(10 * (1 - 1 / bet.k.value))
    assert bet.days_saved.low == pytest.approx(min(ends["low"]))
    assert bet.days_saved.high == pytest.approx(max(ends["high"]))
    assert bet.chips_saved.high == pytest.approx(100 * (1 - 1 / bet.k.high))


def test_numbers_too_large_for_a_float_are_still_said():
    """ln k far beyond 700: JSON has no infinity."""
    treatment = treatment_evidence([0.1] * 4)
    last = treatment.rungs[-1]
    assert last.k
    wide = dataclasses.replace(last, k=dataclasses.replace(last.k, log_se=1e3))
    treatment = dataclasses.replace(treatment, rungs=(*treatment.rungs[:-1], wide))
    bets = extrapolate(pair_evidence(treatment), *planned_runs("6t/a", flops=1e4))
    (bet,) = bets.rows
    assert bet.log_k.low < -700 < 700 < bet.log_k.high
    assert (bet.k.low, bet.k.high, bet.days_saved.low) == (0.0, math.inf, -math.inf)
    json.dumps(to_json(bets), allow_nan=False)


def test_each_row_is_the_bet_at_its_own_flops():
    near, far = (planned_runs(f"{name}/a", flops=flops) for name, flops in (("1t", 1e4), ("6t", 1e9)))
    evidence = pair_evidence(treatment_evidence([0.1] * 4))
    bets = extrapolate(evidence, [*near[0], *far[0]], [*near[1], *far[1]])
    assert [row.verdict for row in bets.rows] == [evidence.bets(flops)["b"] for flops in (1e13, 1e18)]
    assert [row.bet for row in bets.rows] == ["b", None]
    assert ["TARGET_FAR" in row.flags for row in bets.rows] == [False, True]
    for row in bets.rows:
        ends = row.verdict.estimate
        assert (row.log_k.value, row.log_k.low, row.log_k.high) == (ends.log_k, ends.low, ends.high)
        assert f" {ends.chance:.2f} " in shown(bets)


def test_a_run_below_the_trained_scales_gets_no_bet():
    bets = extrapolate(pair_evidence(treatment_evidence([0.1] * 4)), *planned_runs("6t/a", flops=1.0))
    (row,) = bets.rows
    assert (row.k, row.verdict, row.bet, row.days_saved, row.tags) == (None, None, None, None, ())
    assert "it is smaller than 3, the largest scale trained" in row.sentence


def test_either_will_do_is_no_bet_and_is_said():
    equal = pair_evidence(treatment_evidence([0.0, 0.001, 0.0, 0.001], 0.002), bet_margin=0.5)
    bets = extrapolate(equal, *planned_runs("6t/a", flops=1e4))
    assert bets.rows[0].bet is None
    said = " ".join(shown(bets).split())
    assert "6t: either b or a will do (EITHER): k there lies within 50 % of 1" in said
    assert " either EXTRAPOLATION " in said, "in the table"


def test_an_invalid_verdict_carries_no_number():
    invalid = treatment_evidence([0.1] * 4, decision=Decision.INVALID, flags=("MIXED_CODE",))
    bets = extrapolate(pair_evidence(invalid), *planned_runs("6t/a"))
    assert (bets.rows[0].k, bets.rows[0].days_saved, bets.rows[0].chips_saved) == (None, None, None)
    assert "cannot be judged against" in shown(bets)
    assert "k = " not in shown(bets).replace("k = 1;", "")


def test_short_runs_are_told_in_a_shorter_unit():
    runs, (one,) = planned_runs("6t/a")
    short = dataclasses.replace(one, days=PlanEstimate(0.1, 0.08, 0.13, EvidenceKind.assumed))
    bets = extrapolate(pair_evidence(treatment_evidence([0.7] * 4)), runs, [short])
    assert "hours saved" in shown(bets)
    assert f" {24 * 0.1 * (1 - math.exp(-0.7)):.2f} [" in shown(bets)


def test_a_run_that_never_ends_saves_no_days():
    runs, (one,) = planned_runs("6t/a")
    (bet,) = extrapolate(
        pair_evidence(treatment_evidence([0.1] * 4)), runs, [dataclasses.replace(one, days=None)]
    ).rows
    assert bet.days_saved is None
    assert bet.chips_saved.value == pytest.approx(100 * (1 - math.exp(-0.1)))


def test_another_unit_and_other_variants_are_refused():
    evidence = pair_evidence(treatment_evidence([0.1] * 4))
    for asked in (planned_runs("6t/c"), planned_runs("6t/a", unit="mean squared error a value")):
        with pytest.raises(UserError, match="evidence=runs/made compares a, b"):
            extrapolate(evidence, *asked)


def test_a_treatment_that_is_not_planned_is_said():
    bets = extrapolate(pair_evidence(treatment_evidence([0.1] * 4)), *planned_runs("6t/a"))
    assert bets.notes == ("b: no run of this plan has this variant.",)
    assert bets.rows[0].treatment == "b"


def test_the_terminal_says_every_row_and_each_sentence_without_a_sibling():
    (runs, planned), (more, rest) = planned_runs("6t/a", flops=1e15), planned_runs("1t/a", "1t/b", flops=1e9)
    evidence = pair_evidence(treatment_evidence([0.1, 0.12, 0.1, 0.12]))
    bets = extrapolate(evidence, [*runs, *more], [*planned, *rest])
    for width in (80, 120):
        text = shown(bets, width)
        assert all(len(line) <= width for line in text.splitlines())
        said = " ".join(text.split())
        alone, paired = (next(b for b in bets.rows if b.scale == scale) for scale in ("6t", "1t"))
        assert alone.sentence in said
        assert paired.sentence not in said
        assert {"EXTRAPOLATION.", f"{paired.k.value:.2f}", f"{alone.days_saved.value:.2f}"} <= set(
            said.split()
        )
        assert format_interval(alone.chips_saved) in said, "in a second block where the screen is narrow"


def test_the_verb_has_it_as_json_and_in_the_report(swept, tmp_path, monkeypatch, capsys):
    path = swept()
    tools = sweep.LaunchHooks(describe=lambda configs: [facts_of(each) for each in configs])
    monkeypatch.setattr(make_plan, "LaunchHooks", lambda: tools)
    monkeypatch.chdir(tmp_path)
    asked = ["experiment=colossus2", "roster=frontier", "member=6t", "cluster=h100_16k", "--json", "--html"]
    assert cli.main(["plan", *asked, f"evidence={path}"]) == 0
    said = check_output(capsys.readouterr().out, "plan")["bets"]
    assert said.keys() == {"evidence", "experiment", "treatments", "rows", "notes"}
    assert said["treatments"][0]["leads"] == "delta_hybrid"
    (row,) = said["rows"]
    assert (row["scale"], row["run"], row["sibling"]) == ("6t", "6t/mha/seed0", False)
    assert (row["bet"], row["tags"]) == (None, ["EXTRAPOLATION"])
    assert row["decades"] > 1
    for key in ("k", "days_saved", "chips_saved"):
        assert row[key].keys() == {"value", "low", "high"}
    assert row["verdict"]["decision"] == "OPEN"
    assert row["verdict"]["estimate"]["target_flops"] == row["flops"]
    shown = Reader((tmp_path / "runs" / "colossus2" / "report.html").read_text()).text("main")
    assert " ".join(row["sentence"].split()) in shown
    assert f"evidence={path}" in shown, "with which it can be asked for again"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["evidence=nowhere"], "evidence=nowhere is not a sweep"),
        (["evidence=a", "evidence=b"], "given 2 times"),
    ],
)
def test_a_mistake_is_one_sentence(capsys, given, said):
    assert cli.main(["plan", *given]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("sparse", "active", "said"), [(False, 3, True), (True, 7, True), (False, 7, False)])
def test_experts_on_one_side_alone_are_said(sparse, active, said):
    runs, planned = planned_runs("10t/a", "10t/b")
    for run in runs:
        run.facts.active_parameters = active
    evidence = dataclasses.replace(pair_evidence(treatment_evidence([0.1, 0.1, 0.1, 0.1])), sparse=sparse)
    notes = extrapolate(evidence, runs, planned).notes
    assert any("is assumed" in note for note in notes) == said
