"""The fairness table: what each run was given, and what differs between runs of one variant."""

from __future__ import annotations

from harness.compare import compare
from harness.report.tables import comparison_tables
from harness.report.tables.text_table import explain_constant_columns
from tests.compare.judging import SMALL, judged
from tests.compare.synthetic import write_sweep


def test_a_run_that_was_given_something_else_has_a_row_of_its_own(tmp_path):
    def edit(draft):
        if (draft.scale, draft.seed) == ("xs", 1):
            draft.facts["steps"] += 1
            draft.run["tokens"] += 1

    comparison = judged(tmp_path, SMALL, edit)
    rows = {(row.scale, row.variant, row.seeds): row for row in comparison.fairness}
    assert [key for key in rows if key[0] == "xs"] == [
        ("xs", v, n) for v in ("mha", "hybrid") for n in (2, 1)
    ]
    assert [key for key in rows if key[0] == "s"] == [("s", "mha", 3), ("s", "hybrid", 3)]
    assert rows["xs", "hybrid", 1].steps == rows["xs", "hybrid", 2].steps + 1
    assert (rows["xs", "hybrid", 1].parameters_ratio, rows["xs", "mha", 1].control) == (1.0, True)
    table, constant = explain_constant_columns(comparison_tables.fairness(comparison))
    assert {"steps", "tokens"} <= {*table.columns}
    assert "steps" not in constant
    tokens = {row[table.columns.index("tokens")] for row in table.rows if row[0] == "xs"}
    assert tokens == {"200,000,000", "200,000,001"}


def test_a_run_whose_record_is_damaged_does_not_stand_for_its_variant(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", SMALL)
    before = compare(sweep).fairness
    sweep.run("xs", "mha", 0).run.write_text("{")
    after = compare(sweep).fairness
    assert after == before


def test_kernels_have_a_column_where_the_variants_of_a_scale_differ_in_them(tmp_path):
    def edit(draft):
        choice = "reference (no softcap)" if (draft.scale, draft.variant) == ("xs", "hybrid") else "cuDNN"
        draft.facts["kernels"] = [f"attention: {choice}"]

    table = comparison_tables.fairness(judged(tmp_path, SMALL, edit))
    kernels = {row[:2]: row[table.columns.index("kernels")] for row in table.rows}
    assert kernels["xs", "hybrid"] == "attention: reference (no softcap)"
    assert kernels["xs", "mha (control)"] == kernels["s", "hybrid"] == "attention: cuDNN"


def test_kernels_that_are_the_same_have_none(tmp_path):
    def edit(draft):
        draft.facts["kernels"] = ["attention: cuDNN"]

    assert "kernels" not in comparison_tables.fairness(judged(tmp_path, SMALL, edit)).columns
