"""What the fairness table says of mixes, against the ids that the runs read."""

import dataclasses
import json

import pytest

from harness.compare.context.fairness import fairness_rows
from harness.compare.inputs.run_records import read_runs
from harness.config.schema.data import DataConfig, Order, Packing, StageConfig
from harness.core.hashing import to_plain
from harness.data import count_shared_examples, describe_data, describe_mix
from harness.records.run.provenance import Facts
from harness.report.tables import comparison_tables as tables
from harness.report.tables.text_table import explain_constant_columns
from tests.compare.synthetic import Recipe, write_sweep
from tests.report.example import comparison

from .test_mixture_schedule import LATE, SCALE, ids_by_step

NAMES = ("even", "late", "more")


@pytest.fixture
def configs(configure) -> dict[str, DataConfig]:
    late = configure({"a": 1, "b": 1}, stages=LATE, horizon=SCALE.tokens)
    return dict(zip(NAMES, (configure({"a": 1, "b": 1}), late, configure({"a": 3, "b": 1})), strict=True))


def facts_of(facts: Facts, config: DataConfig) -> Facts:
    """As they come back from run.json."""
    data, mix = describe_data(config, 160), describe_mix(config, SCALE)
    changed = dataclasses.replace(
        facts,
        draws=mix.draws,
        mixes=mix.mixes,
        data_fingerprint=data.fingerprint,
        eval_fingerprint=data.eval_fingerprint,
    )
    return Facts(**json.loads(json.dumps(dataclasses.asdict(changed))))


@pytest.fixture
def rows(tmp_path, configs):
    def make(configs=configs):
        recipe = Recipe(
            scales={"xs": 10**6}, variants=dict.fromkeys(NAMES, 1.0), seeds=(0, 1), with_steps=False
        )
        runs = []
        for run in read_runs(write_sweep(tmp_path / "sweep", recipe)):
            facts = facts_of(run.provenance.facts, configs[run.provenance.variant])
            provenance = dataclasses.replace(run.provenance, facts=facts)
            config = {**run.config, "data": to_plain(configs[run.provenance.variant])}
            runs.append(dataclasses.replace(run, provenance=provenance, config=config))
        return fairness_rows(runs, ["xs"], "even", {})

    return make


@pytest.mark.parametrize("stages", [[], LATE[1:], [LATE[0], StageConfig(0.8, {"a": 9})]])
def test_a_row_says_how_much_is_shared_and_until_when(rows, configs, stages):
    """Whichever of the two arms has stages."""
    configs["even"].stages, configs["even"].horizon = stages, SCALE.tokens
    control, *treatments = rows(configs)
    assert (control.shared_examples, control.parting) == (None, None)
    for row in treatments:
        config = configs[row.variant]
        found = count_shared_examples(configs["even"], config, SCALE)
        steps = zip(ids_by_step(configs["even"]), ids_by_step(config), strict=True)
        assert row.shared_examples == found.in_both / found.examples
        assert row.parting == next(t for t, (mine, theirs) in enumerate(steps) if mine != theirs)


def test_the_table_says_it_in_words(rows):
    told = tables.fairness(dataclasses.replace(comparison(), fairness=rows()))
    cells = [row[told.columns.index("mix") :][:2] for row in told.rows]
    late = "a 50 %, b 50 %; from step 30 a 75 %, b 25 %; from step 45 a 0 %, b 100 %"
    assert cells == [
        ("a 50 %, b 50 %", "–"),
        (late, "97.3 %, the same to step 30"),
        ("a 75 %, b 25 %", "75 %"),
    ]


def test_what_is_the_same_in_all_is_said_once(rows, configs):
    content = dataclasses.replace(comparison(), fairness=rows(dict.fromkeys(NAMES, configs["even"])))
    left, same = explain_constant_columns(tables.fairness(content))
    assert not {"mix", "shared examples"} & {*left.columns}
    assert "mix a 50 %, b 50 %" in same


@pytest.mark.parametrize("change", [{"tokenizer": "bpe512"}, {"holdout": 0.3}])
def test_nothing_is_claimed_of_windows_that_differ(rows, configs, change):
    """Equal numbers of other windows are not shared."""
    configs["more"] = dataclasses.replace(configs["more"], **change)
    assert rows(configs)[-1].shared_examples is None


@pytest.mark.parametrize("change", [{"packing": Packing.best_fit}, {"order": Order.blocks}])
def test_nothing_is_claimed_of_other_packings_and_blocks(rows, configs, change):
    configs["late"] = dataclasses.replace(configs["late"], **change)
    row = next(row for row in rows(configs) if row.variant == "late")
    ((key, value),) = change.items()
    assert (row.shared_examples, row.parting) == (None, None)
    assert row.mix.endswith(f"; {key} {value.value}")


def test_a_curriculum_shares_its_examples_and_no_step(rows, configs):
    configs["late"] = dataclasses.replace(configs["late"], order=Order.length)
    row = next(row for row in rows(configs) if row.variant == "late")
    found = count_shared_examples(configs["even"], configs["late"], SCALE)
    assert (row.shared_examples, row.parting) == (found.in_both / found.examples, 0)


def test_a_record_without_numbers_shows_none(rows):
    bare = [dataclasses.replace(row, mix="", shared_examples=None, parting=None) for row in rows()]
    told = tables.fairness(dataclasses.replace(comparison(), fairness=tuple(bare)))
    assert {row[told.columns.index("mix") :][:2] for row in told.rows} == {("–", "–")}
