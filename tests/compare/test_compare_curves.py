"""Curves of any trainer, as oddly as they come: one sentence, or the right flag, never a wrong number."""

from __future__ import annotations

import math

import polars as pl
import pytest

from harness.compare import compare_curves
from harness.compare.compare_curves import UNKNOWN_SIZES, UNVERIFIED_DECAY, VOUCHED_DECAYED
from harness.compare.results.verdict_types import Decision
from harness.core.errors import UserError

COLUMNS = ("variant", "scale", "seed", "step", "tokens", "loss")
B_LATE = (pl.col("variant") == "b") & (pl.col("seed") == 1)


def log(scales=("s",), variants=("a", "b"), seeds=(0, 1, 2)) -> pl.DataFrame:
    """Ten evaluations a run; each later variant is .01 nats better, give or take .0003."""
    rows = [
        (variant, scale, seed, 10 * i, 1000 * i,
         4 - 0.1 * math.log(i) - 0.01 * variants.index(variant) + 3e-4 * math.sin(9 * seed + ord(variant)))
        for variant in variants
        for scale in scales
        for seed in seeds
        for i in range(1, 11)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def sentence(*tables, **options) -> str:
    with pytest.raises(UserError) as caught:
        compare_curves([*tables], **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(table) -> None:
    """The table says what the plain log says."""
    found, plain = compare_curves([table]), compare_curves([log()])
    assert found.rungs == plain.rungs
    assert found.ladder == plain.ladder


def test_the_plain_log_has_a_verdict():
    comparison = compare_curves(log(), decayed="last")
    assert comparison.ladder[0].decision is Decision.B_BETTER
    assert comparison.rungs[0].n == 3
    assert comparison.notes == (VOUCHED_DECAYED,)


def test_an_end_that_nobody_vouches_for_gives_no_direction():
    comparison = compare_curves(log())
    assert comparison.ladder[0].decision is Decision.INCONCLUSIVE
    assert "DECAY_UNVERIFIED" in comparison.rungs[0].flags
    assert comparison.rungs[0].delta == compare_curves(log(), decayed="last").rungs[0].delta
    assert comparison.notes == (UNVERIFIED_DECAY,)


@pytest.mark.parametrize("name", ["learning_rate", "lr"])
def test_a_column_of_learning_rates_tells_whether_an_end_has_decayed(name):
    cooled = log().with_columns(pl.when(pl.col("step") == 100).then(0.001).otherwise(0.01).alias(name))
    comparison = compare_curves(cooled)
    assert comparison.ladder[0].decision is Decision.B_BETTER
    assert comparison.notes == ()
    hot = compare_curves(log().with_columns(pl.lit(0.01).alias(name))).rungs[0]
    assert "HOT_LR_LOOK" in hot.flags
    assert hot.decision is Decision.INVALID


UNMATCHED = pl.when(variant="a").then(pl.col("seed")).otherwise(pl.col("seed") + 10)


def test_unmatched_seeds_are_held_to_the_same_checks():
    table = log().with_columns(seed=UNMATCHED)
    assert not compare_curves(table, decayed="last").rungs[0].paired
    short = table.filter((pl.col("variant") == "b") | (pl.col("step") <= 80))
    assert "UNEQUAL_TOKENS" in compare_curves(short, decayed="last").rungs[0].flags
    hot = compare_curves(table.with_columns(decayed=pl.lit(False))).rungs[0]
    assert hot.decision is Decision.INVALID
    other_domain = table.with_columns(domain=pl.col("variant"))
    assert "EVAL_SET_MISMATCH" in compare_curves(other_domain, decayed="last").rungs[0].flags
    sized = table.with_columns(parameters=pl.when(variant="a").then(1e6).otherwise(2e6))
    assert {"UNEQUAL_PARAMS", "UNEQUAL_FLOPS"} <= {*compare_curves(sized, decayed="last").rungs[0].flags}


def test_a_few_steps_more_are_the_same_length_and_surplus_seeds_are_named():
    more = pl.when(variant="b").then(pl.col("tokens") * 1.003).otherwise("tokens").round()
    assert "UNEQUAL_TOKENS" not in compare_curves(log().with_columns(tokens=more)).rungs[0].flags
    surplus = log().filter((pl.col("variant") == "a") | (pl.col("seed") < 2))
    flags = compare_curves(surplus).rungs[0].flags
    assert "SURPLUS_SEEDS" in flags
    assert "INCOMPLETE" not in flags


CONTROL_LOSS = pl.when(variant="a")


@pytest.mark.parametrize(
    "other", [pl.col("loss").exp(), pl.col("loss") / 0.6931472, pl.col("loss") * 3.0], ids=str
)
def test_an_arm_in_another_unit_is_no_comparison(other):
    table = log().with_columns(loss=CONTROL_LOSS.then(other).otherwise("loss"))
    comparison = compare_curves(table, decayed="last")
    assert comparison.ladder[0].decision is Decision.INVALID
    assert "UNIT_MISMATCH" in comparison.rungs[0].flags
    assert any("--unit" in note for note in comparison.notes)


def test_told_units_are_converted():
    plain = compare_curves(log(), decayed="last").rungs[0].delta
    mixed = log().with_columns(
        loss=CONTROL_LOSS.then(pl.col("loss").exp()).otherwise("loss"),
        unit=CONTROL_LOSS.then(pl.lit("perplexity")).otherwise(pl.lit("nats")),
    )
    assert compare_curves(mixed, decayed="last").rungs[0].delta.mean == pytest.approx(plain.mean)
    score = log().with_columns(loss=-pl.col("loss"))
    told = compare_curves(score, decayed="last", unit="higher_is_better")
    assert told.rungs[0].delta.mean == pytest.approx(plain.mean)
    assert told.loss_unit == "score, negated"
    assert "no such unit" in sentence(log(), unit="nat")


def test_values_that_rise_like_an_accuracy_are_no_loss():
    table = log().with_columns(loss=1 - pl.col("loss") / 20)
    assert compare_curves(table, decayed="last").ladder[0].decision is Decision.INVALID
    told = compare_curves(table, decayed="last", unit="accuracy")
    assert told.ladder[0].decision is Decision.B_BETTER


@pytest.mark.parametrize("options", [{"margin": 0.0}, {"margin": 1.5}, {"alpha": 1.0}, {"decayed": "yes"}])
def test_options_that_mean_nothing_are_refused(options):
    assert next(iter(options)) in sentence(log(), **options)


def test_order_of_columns_and_rows_and_further_columns_change_nothing():
    odd = log().select(reversed(COLUMNS)).with_columns(host=pl.lit("x;\n"), note=pl.lit(None))
    same(odd)
    same(
        pl.concat([odd.filter(variant="a"), odd.filter(variant="b").sample(fraction=1, shuffle=True, seed=0)])
    )


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_are_read_by_what_is_in_them(tmp_path, kind):
    path = tmp_path / "log.txt"
    log().write_csv(path) if kind == "csv" else log().write_parquet(path)
    same(path)
    same(str(path))


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_file_whose_name_reads_like_a_pattern(tmp_path, kind):
    path = tmp_path / "exp[1]" / f"log *.{kind}"
    path.parent.mkdir()
    getattr(log(), f"write_{kind}")(path)
    same(path)


def test_a_csv_as_people_write_it(tmp_path):
    lines = log().write_csv().splitlines()
    head = "\ufeffvariant, scale ,seed,step,tokens, loss,host"
    rows = [line.replace(",s,", " , s, ", 1).replace(",1,", ",1.0,", 1) + ",x" for line in lines[1:]]
    rows[3:3] = ["", ",,,,,,"]
    path = tmp_path / "log.csv"
    path.write_text("\r\n".join([head, *rows, "", ""]))
    same(path)


def test_whole_numbers_may_be_floats_and_texts():
    same(log().with_columns(pl.col("seed", "step", "tokens").cast(pl.Float64)))
    same(
        log().with_columns(pl.col("tokens").cast(pl.Float64).cast(pl.String), pl.col("loss").cast(pl.String))
    )
    same(log().with_columns(pl.col("variant", "scale").cast(pl.Categorical)))


def test_a_table_given_twice_counts_once():
    comparison = compare_curves([log(), log()])
    assert comparison.rungs == compare_curves([log()]).rungs


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-inf", "Infinity"])
def test_a_loss_that_is_not_finite_is_a_divergence(tmp_path, text):
    odd = pl.when(B_LATE & (pl.col("step") > 50)).then(pl.lit(text)).otherwise(pl.col("loss").cast(pl.String))
    log().with_columns(loss=odd).write_csv(tmp_path / "log.csv")
    comparison = compare_curves([tmp_path / "log.csv"])
    assert "DIVERGED" in comparison.rungs[0].flags
    assert comparison.ladder[0].decision is Decision.INVALID
    assert comparison.divergence[0].diverged == 1


def test_an_empty_loss_in_the_middle_is_no_evaluation():
    gaps = log().with_columns(loss=pl.when(pl.col("step") != 50).then("loss"))
    assert compare_curves(gaps).rungs[0].delta == compare_curves(log()).rungs[0].delta


def test_a_run_without_any_loss_is_missing_rather_than_forgotten():
    comparison = compare_curves(log().with_columns(loss=pl.when(~B_LATE).then("loss")))
    assert "INCOMPLETE" in comparison.rungs[0].flags
    assert comparison.rungs[0].n == 2
    (run,) = [run for run in comparison.runs if run.outcome is None]
    assert run.path == "s/b/seed1"
    assert "without any evaluation" in run.problem


def test_a_run_without_its_end_is_not_judged():
    broken = compare_curves(log().filter(~(B_LATE & (pl.col("step") > 60)))).rungs[0]
    assert {"HOT_LR_LOOK", "UNEQUAL_TOKENS"} <= {*broken.flags}
    assert broken.decision is Decision.INVALID


def test_a_pair_that_both_broke_off_has_not_decayed():
    both = compare_curves(log().filter(~((pl.col("seed") == 1) & (pl.col("step") > 60)))).rungs[0]
    assert "HOT_LR_LOOK" in both.flags
    assert "UNEQUAL_TOKENS" not in both.flags
    assert both.decision is Decision.INVALID


def test_decayed_is_believed_where_it_is_said():
    last = pl.col("step") == 100
    said = compare_curves(
        log().with_columns(decayed=pl.when(last).then(pl.lit("True")).otherwise(pl.lit("0")))
    )
    assert said.notes == ()
    assert "HOT_LR_LOOK" not in said.rungs[0].flags
    hot = compare_curves(log().with_columns(decayed=pl.lit(False)))
    assert "HOT_LR_LOOK" in hot.rungs[0].flags


def test_one_file_may_say_less_than_the_other():
    a = log().filter(variant="a").with_columns(decayed=pl.col("step") == 100, parameters=pl.lit(1e6))
    b = log().filter(variant="b").with_columns(parameters=pl.lit(1e6))
    comparison = compare_curves([a, b])
    assert comparison.rungs[0].delta == compare_curves(log()).rungs[0].delta
    assert "HOT_LR_LOOK" not in comparison.rungs[0].flags
    assert comparison.notes == (UNVERIFIED_DECAY,)


def test_scales_without_a_size_are_said_to_stand_by_name():
    table = log(scales=("s", "xs"))
    assert UNKNOWN_SIZES in compare_curves(table).notes
    sized = compare_curves(table.with_columns(parameters=pl.when(scale="s").then(3e6).otherwise(1e6)))
    assert UNKNOWN_SIZES not in sized.notes
    assert [rung.scale for rung in sized.rungs] == ["xs", "s"]


def test_a_comparison_needs_two_variants():
    assert "'a' is the only variant" in sentence(log(variants=("a",)))
    assert "control=c: no such variant in the curves; valid: a, b" in sentence(log(), control="c")


def test_one_seed_decides_nothing():
    comparison = compare_curves(log(seeds=(0,)))
    assert "NO_SEED_REPLICATION" in comparison.rungs[0].flags
    assert comparison.ladder[0].decision is Decision.INVALID


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": pl.lit(0.5)}, "row 1: seed=0.5 is not a whole number"),
        ({"seed": pl.lit("zero")}, "row 1: seed=zero is not a number"),
        ({"seed": pl.lit(None)}, "row 1: seed is empty"),
        ({"scale": pl.lit("  ")}, "row 1: scale is empty"),
        ({"step": pl.lit(math.nan)}, "row 1: step=nan is not a whole number"),
        ({"step": pl.lit(2.0**60)}, "is not a whole number"),
        ({"tokens": -pl.col("tokens")}, "row 1: tokens=-1000 must be finite and not negative"),
        ({"tokens": pl.lit(None)}, "row 1: tokens is empty"),
        ({"flops": pl.lit("inf")}, "row 1: flops=inf must be finite"),
        ({"loss": pl.lit("n/a")}, "row 1: loss=n/a is not a number"),
        ({"decayed": pl.lit("maybe")}, "row 1: decayed=maybe is neither true nor false"),
        ({"branch": pl.lit(1.0)}, "row 1: branch=1.0 is not between 0 and 1"),
        ({"step": pl.lit("2026-01-01").str.to_date()}, "the column 'step' holds Date"),
    ],
)
def test_a_cell_that_cannot_be_read_is_named(change, said):
    assert said in sentence(log().with_columns(**change))


def test_the_row_is_counted_as_it_stands_in_the_file(tmp_path):
    lines = log().write_csv().splitlines()
    lines[2:2] = [",,,,,", "a,s,0,15,x,3.0"]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    assert f"{tmp_path / 'log.csv'}: row 3: tokens=x" in sentence(tmp_path / "log.csv")


def test_two_losses_of_one_step_are_refused():
    resumed = log().filter(B_LATE, step=50).with_columns(loss=pl.col("loss") + 0.1)
    assert "s/b/seed1 has several losses at step 50" in sentence(log(), resumed)


def test_what_is_no_table_is_refused(tmp_path):
    assert "there is no column 'loss'; did you mean 'los'?" in sentence(log().rename({"loss": "los"}))
    assert "two columns 'loss'" in sentence(log().with_columns(pl.col("loss").alias(" loss")))
    assert "cannot be read (No such file" in sentence(tmp_path / "absent.csv")
    assert "cannot be read as logs: no table, text log" in sentence(tmp_path)
    files = {
        "empty": (b"", "is empty. Give a file"),
        "ragged": (b"variant,scale\na,b,c\n", "line 2 has 3 cells, but the header has 2."),
        "bytes": (b"variant,scale\n\xff\xfe,b\n", "is not text in UTF-8. Save it so"),
        "PAR1": (b"PAR1 nothing", "is not a Parquet table"),
    }
    for name, (content, said) in files.items():
        (tmp_path / name).write_bytes(content)
        assert f"{tmp_path / name}: {said}" in sentence(tmp_path / name)
    (tmp_path / "head").write_text(",".join(COLUMNS))
    assert "no rows to compare" in sentence(tmp_path / "head")
    assert "no rows to compare" in sentence()


SEPARATED = {";": "semicolons", "\t": "tabs", ",": "commas"}


@pytest.mark.parametrize("separator", SEPARATED, ids=[*SEPARATED.values()])
def test_the_header_says_how_a_csv_is_separated(tmp_path, separator):
    path = tmp_path / "log.csv"
    note = "commas, and tabs\t; in a note" if separator != "," else "semicolons; here"
    log().with_columns(note=pl.lit(note)).write_csv(path, separator=separator)
    same(path)


def test_json_lines_are_read(tmp_path):
    path = tmp_path / "log.txt"
    lines = log().write_ndjson().splitlines()
    lines[4:4] = ["", '{"variant": "a", "scale": "s", "seed": 0, "step": 45, "lr": {"a": [1]}}']
    path.write_text("\ufeff" + "\n".join(lines) + "\n\n")
    same(path)
    lines[-1] = '{"variant": "b", "scale": "s", "seed": 2, "step": 100, "tokens": 1e5, "loss": NaN}'
    path.write_text("\n".join(lines))
    assert "DIVERGED" in compare_curves([path]).rungs[0].flags


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "variant scale seed\na s 0\n",
            "is one column, 'variant scale seed'. Separate the columns by commas,",
        ),
        ('{"a": 1}\n{"a": \n', "line 2 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON"),
        ('{"a": 1}\n[1]\n', "line 2 is not a JSON object. Write one object a line"),
        ('[{"a": 1}]', "there is no column 'variant'"),
        ('{"a": 1}', "there is no column 'variant'"),
        (
            "variant;scale;seed;step;tokens;loss\na;s;0;1;10;3,5",
            "row 1: loss=3,5 is not a number: write a dec",
        ),
        ("PAR\0;\0\n\0", "is binary, or text in UTF-16 without its mark"),
    ],
)
def test_a_file_in_another_form_is_refused_with_the_way_out(tmp_path, text, said):
    path = tmp_path / "log.csv"
    path.write_text(text)
    assert said in sentence(path)


def test_a_run_is_judged_by_its_last_evaluation_whatever_is_logged_after_it():
    plain = compare_curves(log())
    training = (
        log().filter(step=100).with_columns(step=pl.lit(101), tokens=pl.lit(101_000), loss=pl.lit(None))
    )
    summary = training.with_columns(step=pl.lit(None, pl.Int64), tokens=pl.lit(None, pl.Int64))
    for rows in (training, training.filter(B_LATE), summary):
        after = compare_curves([log(), rows])
        assert (after.rungs, after.ladder, after.notes) == (plain.rungs, plain.ladder, plain.notes)
    marked = log().with_columns(decayed=pl.col("step") == 100)
    after = compare_curves([marked, training])
    assert (after.rungs, after.notes) == (compare_curves(marked).rungs, ())


def test_rows_before_the_first_evaluation_may_know_less():
    sized = log().with_columns(parameters=pl.lit(1e6), data_seed=pl.col("seed"))
    before = log().filter(step=10).with_columns(step=pl.lit(1), loss=pl.lit(None))
    assert compare_curves([before, sized]).fairness == compare_curves(sized).fairness
    odd = sized.with_columns(parameters=pl.when(pl.col("step") < 50).then(1e6).otherwise(2e6))
    assert "s/a/seed0 has several values of parameters (1e+06, 2e+06). Give one per run." in sentence(odd)
