"""From pair to bet: the line that is carried, what is refused, and words that claim no more than they may."""

import dataclasses
import io
import itertools
import json
import math
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from harness import cli
from harness.compare.as_json import to_json
from harness.compare.estimates import Effect, Slope
from harness.compare.multiplier import multiplier_from
from harness.compare.trend import trend
from harness.compare.verdicts import Decision, GateResult, Ladder, Rung
from harness.config.errors import UserError
from harness.fleet import launch
from harness.plan.bets import place_bets
from harness.plan.bets_view import bets_part
from harness.plan.predict import Evidence as Layer
from harness.plan.predict import Number
from harness.plan.sheet import PlannedRun
from harness.plan.standing import Evidence, Standing, read_evidence
from harness.plan.view import print_parts
from harness.plan.wagers import Case
from tests.compare.synthetic import Recipe, write_sweep
from tests.plan.test_verb import facts_of
from tests.report.test_page import Reader

PAIR = {"mha": 1.0, "delta_hybrid": 1.05}
SIZES = {"xs": 10**7, "s": 3 * 10**7, "m": 10**8}
DECADE = math.log(10)
AT = np.log(1e11) + np.arange(4) * math.log(3)
"""ln FLOPs of the scales of evidence that is made up."""


@pytest.fixture
def swept(monkeypatch, tmp_path):
    """Writes a sweep of pairs, for which nobody waits to reach the disk, and gives its path."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    path = tmp_path / "runs" / "pairs"

    def write(edit=None, **changed) -> str:
        given = {"variants": PAIR, "scales": SIZES, "with_steps": False, "steps": 16} | changed
        write_sweep(path, Recipe(**given), edit)
        return str(path)

    return write


def standing_of(log_k, se=0.01, *, df=4.0, decision=Decision.INCONCLUSIVE, gate=None, at=AT, flags=()):
    """Of multipliers at scales of compute e^at; the loss difference is minus half of ln k."""
    k = [multiplier_from(Slope.k_tokens, one, se, df, 3, ()) for one in log_k]
    rungs = [_rung(f"{i}", math.exp(x), one, se) for i, (x, one) in enumerate(zip(at, k, strict=True))]
    mean = float(np.mean(log_k))
    pooled = multiplier_from(Slope.k_tokens, mean, se / 2, 4 * df, 12, ())
    ladder = _made(
        Ladder, variant="b", control="a", scales=tuple(rung.scale for rung in rungs), decision=decision,
        k=pooled, flags=flags, trend=trend(at, k, sign=math.copysign(1, mean)),
    )  # fmt: skip
    return Standing(ladder, tuple(rungs), gate)


def _rung(scale, flops, k, se) -> Rung:
    mean = -k.log_k / 2
    delta = Effect(mean, mean - 2 * se, mean + 2 * se, 0.5, 3, 2.0, "t", se=se)
    return _made(Rung, scale=scale, variant="b", control="a", n=3, flops=flops, k=k, delta=delta, flags=())


def _made(kind, **known):
    """With None where nothing is said."""
    return kind(**dict.fromkeys((each.name for each in dataclasses.fields(kind)), None) | known)


def runs_of(*named, unit="nats a token", tokens=10**9, flops=1e3):
    """Runs `<scale>/<variant>` as described, and as planned."""
    runs, planned = [], []
    for name in named:
        scale, variant = name.split("/")
        config = SimpleNamespace(scale=SimpleNamespace(name=scale), variant=SimpleNamespace(name=variant))
        runs.append(
            SimpleNamespace(
                name=f"{name}/seed0",
                config=config,
                facts=SimpleNamespace(loss_unit=unit, active_parameters=7, non_embedding=7),
            )
        )
        planned.append(
            PlannedRun(
                name=f"{name}/seed0", parameters=1, active_parameters=1, flops_per_token=flops, tokens=tokens,
                kind="h100", chips=100, devices=100, days=Number(10.0, 8.0, 13.0, Layer.assumed),
            )
        )  # fmt: skip
    return runs, planned


def evidence_of(*standings) -> Evidence:
    return Evidence("runs/made", "made", "nats a token", "a", standings)


def test_a_planted_line_is_carried_and_its_interval_widens():
    standing = standing_of(0.02 * AT - 0.4)
    spans = [standing.log_k(math.exp(AT[-1] + ahead)) for ahead in (0.0, DECADE, 13 * DECADE, 600)]
    for span, ahead in zip(spans, (0.0, DECADE, 13 * DECADE, 600), strict=True):
        assert span.value == pytest.approx(0.02 * (AT[-1] + ahead) - 0.4, abs=1e-9)
    widths = [span.high - span.low for span in spans]
    assert widths == sorted(widths)
    assert widths[2] > 5 * widths[1] > 5 * widths[0]


def test_least_squares_say_the_same_of_scales_that_weigh_alike():
    log_k = np.random.default_rng(0).normal(0, 0.05, 4)
    at = AT[-1] + 2.0
    assert standing_of(log_k).log_k(math.exp(at)).value == pytest.approx(
        np.polyval(np.polyfit(AT, log_k, 1), at)
    )


@pytest.mark.parametrize(
    ("decades", "scatter", "least"), [(1, 0, 0.95), (13, 0, 0.95), (1, 1, 0.95), (1, 5, 0.93)]
)
def test_the_interval_holds_what_is_true_about_as_often_as_it_says(decades, scatter, least):
    """600 sweeps of three pairs a scale. `scatter`: SD of scales about the line, in SDs of a pair; of such
    it is estimated from two degrees of freedom, so that the interval is a little narrow where it rules."""
    random, sd, reps = np.random.default_rng(1), 0.02, 600
    at, own = AT[-1] + decades * DECADE, scatter * sd * random.normal(0, 1, (reps, 5))
    pairs = (0.3 - 0.01 * AT + own[:, :4])[:, None] + random.normal(0, sd, (reps, 3, 4))
    hits = 0
    for seen, true in zip(pairs, 0.3 - 0.01 * at + own[:, 4], strict=True):
        means, errors = seen.mean(0), seen.std(0, ddof=1) / math.sqrt(3)
        k = [multiplier_from(Slope.k_tokens, m, s, 2.0, 3, ()) for m, s in zip(means, errors, strict=True)]
        rungs = tuple(_rung("s", math.exp(x), one, sd) for x, one in zip(AT, k, strict=True))
        span = Standing(_made(Ladder, decision=Decision.INCONCLUSIVE), rungs, None).log_k(math.exp(at))
        hits += span.low <= true <= span.high
    print(f"coverage {decades} decades beyond, scatter {scatter}: {hits / reps:.3f}")
    assert least - 4 * math.sqrt(0.95 * 0.05 / reps) <= hits / reps < 0.995


def test_a_sweep_on_disk_is_read_and_carried(swept):
    evidence = read_evidence(swept(beside={"gate": {"quality": 0.01}}))
    (one,) = evidence.standings
    assert one.gate.variant == "delta_hybrid"
    assert not one.gate.promote, "nothing was timed"
    assert (evidence.control, one.ladder.variant, one.largest.scale) == ("mha", "delta_hybrid", "m")
    assert one.leads == "delta_hybrid"
    span = one.log_k(10 * one.largest.flops)
    assert span.low <= math.log(1.05) <= span.high
    assert one.ahead(10 * one.largest.flops) == pytest.approx(DECADE)


def _alone(draft):
    return draft.variant == "mha"


def _cut(draft):
    if (draft.scale, draft.variant, draft.seed) == ("s", "mha", 1):
        draft.status["state"], draft.ended = "preempted", False


def _missing_seed(draft):
    return draft.scale != "s" or draft.seed == 0


@pytest.mark.parametrize(
    ("changed", "edit", "said"),
    [
        ({"scales": {"xs": 10**7, "s": 3 * 10**7}}, None, "meet at 2 scales, and a trend needs 3"),
        ({"seeds": (0,)}, None, "have 1 seed at xs, and an interval needs 2"),
        ({}, _missing_seed, "1 of 12 runs have no loss|have 1 seed at s"),
        ({}, _cut, "1 of 18 runs have no loss at their end (s/mha/seed1 is preempted)"),
        ({}, _alone, "no two variants meet there"),
        ({"positive_control": "delta_hybrid"}, None, "no two variants meet there"),
    ],
)  # fmt: skip
def test_evidence_that_carries_nothing_is_refused(swept, changed, edit, said):
    path = swept(edit, **changed)
    with pytest.raises(UserError) as refused:
        read_evidence(path)
    assert str(refused.value).startswith(f"evidence={path}: ")
    assert any(each in str(refused.value) for each in said.split("|"))


def test_a_sweep_that_is_not_there_is_named_with_its_key(tmp_path):
    with pytest.raises(UserError, match=r"^evidence=.*no sweep lies there"):
        read_evidence(str(tmp_path))


def test_rows_are_the_scales_of_the_plan_and_the_control_pays():
    evidence = evidence_of(standing_of([0.1, 0.11, 0.1, 0.11]))
    runs, planned = runs_of("6t/a", "1t/b", "1t/a", "10t/c", "2t/b", flops=1e4)
    bets = place_bets(evidence, runs, planned)
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
    runs, planned = runs_of("6t/a", flops=1e6)
    (bet,) = place_bets(evidence_of(standing_of([level] * 4, se)), runs, planned).rows
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
    runs, planned = runs_of("6t/a", flops=1e200)
    bets = place_bets(evidence_of(standing_of(3.0 * (AT - AT[0]), 9.0)), runs, planned)
    (bet,) = bets.rows
    assert bet.log_k.low < -700 < 700 < bet.log_k.value
    assert (bet.k.value, bet.k.high, bet.days_saved.low) == (math.inf, math.inf, -math.inf)
    json.dumps(to_json(bets), allow_nan=False)


def test_an_invalid_verdict_carries_no_number():
    invalid = standing_of([0.1] * 4, decision=Decision.INVALID, flags=("MIXED_CODE",))
    bets = place_bets(evidence_of(invalid), *runs_of("6t/a"))
    assert (bets.rows[0].k, bets.rows[0].days_saved, bets.rows[0].chips_saved) == (None, None, None)
    console = Console(width=120, force_terminal=False, file=io.StringIO())
    print_parts([bets_part(bets)], console)
    assert "k_tokens" not in console.file.getvalue()


def test_short_runs_are_told_in_a_shorter_unit():
    runs, (one,) = runs_of("6t/a")
    short = dataclasses.replace(one, days=Number(0.1, 0.08, 0.13, Layer.assumed))
    bets = place_bets(evidence_of(standing_of([0.7] * 4)), runs, [short])
    console = Console(width=120, force_terminal=False, file=io.StringIO())
    print_parts([bets_part(bets)], console)
    assert "hours saved" in console.file.getvalue()
    assert f" {24 * 0.1 * (1 - math.exp(-0.7)):.2f} [" in console.file.getvalue()


def test_a_run_that_never_ends_saves_no_days():
    runs, (one,) = runs_of("6t/a")
    (bet,) = place_bets(evidence_of(standing_of([0.1] * 4)), runs, [dataclasses.replace(one, days=None)]).rows
    assert bet.days_saved is None
    assert bet.chips_saved.value == pytest.approx(100 * (1 - math.exp(-0.1)))


def test_another_unit_and_other_variants_are_refused():
    evidence = evidence_of(standing_of([0.1] * 4))
    for asked in (runs_of("6t/c"), runs_of("6t/a", unit="mean squared error a value")):
        with pytest.raises(UserError, match="evidence=runs/made: it compares a, b in nats a token"):
            place_bets(evidence, *asked)


def test_a_treatment_that_is_not_planned_is_said():
    bets = place_bets(evidence_of(standing_of([0.1] * 4)), *runs_of("6t/a"))
    assert bets.notes == ("b: no run of this plan has this variant.",)
    assert bets.rows[0].treatment == "b"


number = st.floats(-0.5, 0.5)


@settings(max_examples=150, deadline=None)
@given(
    log_k=st.lists(number, min_size=4, max_size=4),
    se=st.floats(0.001, 0.3),
    decision=st.sampled_from(Decision),
    decades=st.floats(-2, 15),
    promote=st.sampled_from([None, True, False]),
    sibling=st.booleans(),
)
def test_no_sentence_claims_more_than_the_design_carries(log_k, se, decision, decades, promote, sibling):
    gate = None if promote is None else GateResult("b", promote, 3, (), "won 3 of 4")
    flags = ("MIXED_CODE",) if decision is Decision.INVALID else ("LOW_DF",)
    standing = standing_of(log_k, se, decision=decision, gate=gate, flags=flags)
    span = standing.log_k(math.exp(AT[-1] + decades * DECADE))
    case = Case("6t", standing, span, decades, sibling)
    wins = {Decision.B_BETTER: "b", Decision.A_BETTER: "a"}.get(decision)
    sign = "b" if log_k[-1] > 0 else "a" if log_k[-1] < 0 else None
    beyond = decades > 1
    line = None if span is None or span.low <= 0 <= span.high else "b" if span.low > 0 else "a"
    may = wins is not None and wins == sign == line and not beyond and not (wins == "b" and promote is False)
    assert case.bet == (wins if may else None)
    text = case.sentence
    assert ("bet on" in text) == may
    assert ("does not settle" in text) != may
    assert ("decides nothing" in text) == (beyond and decision is not Decision.INVALID)
    assert (f"{decades - 1:.1f} decades" in text) or not beyond or decision is Decision.INVALID
    assert not {"better", "wins", "proves"} & set(text.split())
    assert {each.value for each in Decision if each.value in text} <= {decision.value}
    assert re.fullmatch(r"6t: .*[^.]\.", text)
    assert ". " not in text, "one sentence"
    if decision is Decision.INVALID:
        assert span is None
        assert "ahead" not in text
        assert "MIXED_CODE" in text


SURE = {"log_k": [0.3, 0.31, 0.3, 0.31], "se": 0.001, "decision": Decision.B_BETTER}


@pytest.mark.parametrize(
    ("changed", "decades", "said"),
    [
        ({}, 0.5, "bet on b, which is no verdict"),
        ({"decision": Decision.EQUIVALENT}, 0.5, "over the scales trained is EQUIVALENT"),
        ({"decision": Decision.A_BETTER}, 0.5, "3, the largest trained, disagrees"),
        ({"decision": Decision.INVALID, "flags": ("HOT_LR_LOOK",)}, 0.5, "INVALID (HOT_LR_LOOK): nothing is"),
        ({"se": 0.5}, 0.5, "the projected interval holds k = 1"),
        ({"log_k": [0.7, 0.5, 0.3, 0.1]}, 1.0, "the line has turned to a"),
        ({"log_k": [0.4, 0.39, 0.38, 0.37]}, 0.5, "but its lead shrinks with scale"),
        ({"at": AT[[0, 0, 0, 0]]}, 0.5, "no line can be drawn"),
        ({"gate": GateResult("b", False, 2, (), "won 2 of 4")}, 0.5, "does not promote b (won 2 of 4)"),
        ({"gate": GateResult("b", True, 3, (), "won 3 of 4")}, 0.5, "bet on b"),
        ({}, 14.0, "it lies 13.0 decades of compute beyond where the line may be drawn, and its number"),
    ],
)  # fmt: skip
def test_each_doubt_alone_forbids_the_bet_and_is_said(changed, decades, said):
    standing = standing_of(**SURE | changed)
    case = Case("6t", standing, standing.log_k(math.exp(AT[-1] + decades * DECADE)), decades, False)
    assert said in case.sentence
    assert (case.bet == "b") == ("bet on b" in case.sentence) == ("bet" in said or "shrinks" in said)
    assert case.bet or ";" not in case.sentence.partition("; what is left")[0], "one doubt"


def test_a_line_beyond_a_decade_never_bets_however_narrow():
    sure = standing_of([0.1] * 4, 1e-6, decision=Decision.B_BETTER)
    near, far = (sure.log_k(math.exp(AT[-1] + d * DECADE)) for d in (0.9, 1.1))
    assert (Case("x", sure, near, 0.9, False).bet, Case("x", sure, far, 1.1, False).bet) == ("b", None)


def test_the_terminal_says_every_row_and_each_sentence_without_a_sibling():
    (runs, planned), (more, rest) = runs_of("6t/a", flops=1e15), runs_of("1t/a", "1t/b", flops=1e9)
    evidence = evidence_of(standing_of([0.1, 0.12, 0.1, 0.12]))
    bets = place_bets(evidence, [*runs, *more], [*planned, *rest])
    for width in (80, 120):
        console = Console(width=width, force_terminal=False, file=io.StringIO())
        print_parts([bets_part(bets)], console)
        text = console.file.getvalue()
        assert all(len(line) <= width for line in text.splitlines())
        said = " ".join(text.split())
        alone, paired = (next(b for b in bets.rows if b.scale == scale) for scale in ("6t", "1t"))
        assert alone.sentence in said
        assert paired.sentence not in said
        assert {"EXTRAPOLATION.", f"{paired.k.value:.2f}", f"{alone.days_saved.value:.2f}"} <= set(
            said.split()
        )
        assert ("chips saved" in said) == (width > 100)


def test_the_verb_has_it_as_json_and_in_the_report(swept, tmp_path, monkeypatch, capsys):
    path = swept()
    tools = launch.Tools(describe=lambda configs: [facts_of(each) for each in configs])
    monkeypatch.setattr(launch, "Tools", lambda: tools)
    monkeypatch.chdir(tmp_path)
    asked = ["experiment=colossus2", "ladder=frontier", "member=6t", "cluster=h100_16k", "--json", "--html"]
    assert cli.main(["plan", *asked, f"evidence={path}"]) == 0
    said = json.loads(capsys.readouterr().out)["bets"]
    assert said.keys() == {"evidence", "experiment", "treatments", "rows", "notes"}
    assert said["treatments"][0]["leads"] == "delta_hybrid"
    (row,) = said["rows"]
    assert (row["scale"], row["run"], row["sibling"]) == ("6t", "6t/mha/seed0", False)
    assert (row["bet"], row["tags"]) == (None, ["EXTRAPOLATION"])
    assert row["decades"] > 1
    for key in ("k", "days_saved", "chips_saved"):
        assert row[key].keys() == {"value", "low", "high"}
    shown = Reader((tmp_path / "runs" / "colossus2" / "report.html").read_text()).text("main")
    assert " ".join(row["sentence"].split()) in shown
    assert f"evidence={path}" in shown, "with which it can be asked for again"


@pytest.mark.parametrize(
    ("given", "said"),
    [(["evidence=nowhere"], "evidence=nowhere: no sweep"), (["evidence=a", "evidence=b"], "given 2 times")],
)
def test_a_mistake_is_one_sentence(capsys, given, said):
    assert cli.main(["plan", *given]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("sparse", "active", "said"), [(False, 3, True), (True, 7, True), (False, 7, False)])
def test_experts_on_one_side_alone_are_said(sparse, active, said):
    runs, planned = runs_of("10t/a", "10t/b")
    for run in runs:
        run.facts.active_parameters = active
    evidence = dataclasses.replace(evidence_of(standing_of([0.1, 0.1, 0.1, 0.1])), sparse=sparse)
    notes = place_bets(evidence, runs, planned).notes
    assert any("is assumed" in note for note in notes) == said
