"""What fine-tuning forgot, against a computation by hand from the evaluations on disk."""

from typing import cast

import numpy as np
import polars as pl
import pytest

from harness.compare.context.fairness import shared_parameter_share
from harness.compare.inputs.run_records import read_runs
from harness.compare.judge import compare
from harness.compare.verdict.flags import EXPLANATIONS
from harness.records.run.metrics import read_curve
from harness.report.frames.sweep_frames import read_frames
from harness.report.tables import comparison_tables as comparison
from harness.report.tables.markdown import markdown
from tests.compare.synthetic import Draft, Recipe, write_sweep

SEEDS = (0, 1, 2)
VARIANTS = {"mha": 1.0, "hybrid": 1.02}


def fine_tuned(draft: Draft) -> None:
    """Starts from a checkpoint, was evaluated there, and trains on prose alone."""
    name = f"parents/{draft.scale}/mha/seed{draft.seed}@64"
    checksum = f"{draft.scale}{draft.seed}"
    draft.facts |= {
        "base": {"run": "/gone", "name": name, "step": 64, "identity": "i", "checksum": checksum},
        "trainable": 1000 if draft.variant == "hybrid" else draft.facts["parameters"],
        "draws": {"code": 0, "prose": 4096},
        "mixes": [(0, {"code": 0, "prose": 4096})],
    }
    first = [row for row in draft.evals if row["step"] == draft.evals[0]["step"]]
    rng = np.random.default_rng([draft.seed, len(draft.variant), len(draft.scale)])
    knew = {row["domain"]: row["loss"] - 0.4 + 0.01 * rng.normal() for row in first}
    zero = {"step": 0, "tokens": 0, "flops": 0.0, "device_seconds": 0.0, "decayed": False}
    draft.evals = [row | zero | {"loss": knew[row["domain"]]} for row in first] + draft.evals
    draft.config["rule"]["domains"] = ["prose"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("tuned") / "sweep", Recipe(variants=VARIANTS), fine_tuned)


def changes(sweep, scale, variant, domain):
    """End minus start by seed, from the files."""
    found = []
    for seed in SEEDS:
        rows = read_curve(sweep.run(scale, variant, seed), "evals").filter(pl.col("domain") == domain)
        losses = dict(rows.select("step", "loss").iter_rows())
        found.append(losses[max(losses)] - losses[0])
    return np.array(found)


def test_changes_and_their_differences_are_those_computed_by_hand(sweep):
    rows = compare(sweep).forgetting
    assert [(row.scale, row.variant, row.domain) for row in rows] == [
        (scale, variant, "code") for scale in ("xs", "s", "m") for variant in VARIANTS
    ]
    for row in rows:
        own = changes(sweep, row.scale, row.variant, "code")
        assert row.change.mean == pytest.approx(own.mean())
        assert row.end - row.start == pytest.approx(own.mean())
        half = 4.302653 * own.std(ddof=1) / np.sqrt(3)  # t of two degrees of freedom
        assert row.change.low is not None
        assert row.change.high is not None
        assert row.change.high - row.change.low == pytest.approx(2 * half, rel=1e-5)
        assert row.control is (row.variant == "mha")
        if row.control:
            assert row.delta is None
        else:
            pairs = own - changes(sweep, row.scale, "mha", "code")
            assert row.delta.mean == pytest.approx(pairs.mean())
            assert row.delta.high == pytest.approx(
                pairs.mean() + 4.302653 * pairs.std(ddof=1) / np.sqrt(3), rel=1e-5
            )


def test_what_a_run_was_before_its_first_step_is_no_point_of_its_curve(sweep, tmp_path):
    def drawn(draft):
        fine_tuned(draft)
        draft.evals = [row for row in draft.evals if row["step"]]

    without = compare(write_sweep(tmp_path / "sweep", Recipe(variants=VARIANTS), drawn))
    judged = compare(sweep)
    assert [rung.delta for rung in judged.rungs] == [rung.delta for rung in without.rungs]
    assert [rung.flags for rung in judged.rungs] == [rung.flags for rung in without.rungs]
    assert cast(int, read_frames(sweep, judged).evals["step"].min()) > 0
    assert without.forgetting == ()


def test_a_run_that_is_not_finished_has_no_end(tmp_path):
    def cut(draft):
        fine_tuned(draft)
        if draft.variant == "hybrid" and draft.seed == 1:
            draft.status |= {"state": "running", "step": 3}

    recipe = Recipe(scales={"xs": 10**7}, variants=VARIANTS)
    rows = compare(write_sweep(tmp_path / "sweep", recipe, cut)).forgetting
    assert {row.variant: row.change.n for row in rows} == {"mha": 3, "hybrid": 2}


def test_the_base_and_what_learns_stand_in_the_table_of_fairness(sweep):
    row = compare(sweep).fairness[1]
    assert (row.base, row.trainable) == ("parents/*/mha/seed*@64", 1000)
    assert row.shared is not None
    assert row.shared > 0


def test_another_start_shares_no_parameter(sweep):
    one, other = (run.provenance.facts for run in read_runs(sweep)[:2])
    assert one.base != other.base
    assert shared_parameter_share(one, other) == 0.0
    assert shared_parameter_share(one, one) == 1.0


def test_an_empty_rule_says_which_domains_decide(tmp_path):
    def everything(draft):
        fine_tuned(draft)
        draft.config["rule"]["domains"] = []

    recipe = Recipe(scales={"xs": 10**7}, variants=VARIANTS)
    (note,) = compare(write_sweep(tmp_path / "sweep", recipe, everything)).notes
    assert note.startswith("rule.domains is empty")
    assert note.endswith("including untrained code.")


def test_a_flip_is_looked_for_in_the_domains_that_decide(tmp_path):
    """Before the decay the treatment is far worse on what it forgets, and better on what decides."""

    def forgetful(draft):
        fine_tuned(draft)
        for row in draft.evals:
            if draft.variant == "hybrid" and row["step"]:
                row["loss"] += 1.0 + 0.01 * draft.seed if row["domain"] == "code" else -0.05

    recipe = Recipe(scales={"xs": 10**7}, variants=VARIANTS)
    sweep = write_sweep(tmp_path / "sweep", recipe, forgetful)
    content = sweep.rule.read_text()
    sweep.rule.write_text(content.replace('"domains": []', '"domains": ["prose"]'))
    (rung,) = compare(sweep).rungs
    assert rung.delta.mean < 0
    assert "SCHEDULE_FLIP" in EXPLANATIONS
    assert "SCHEDULE_FLIP" not in rung.flags


def test_it_is_shown(sweep):
    judged = compare(sweep)
    table = comparison.forgetting(judged)
    assert table.columns[:3] == ("scale", "variant", "domain")
    assert len(table.rows) == 6
    assert "Forgetting" in markdown(judged)
