"""The lines of data before a sweep: files, documents, tokens, passes, what is held out, rows of padding."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.config.schema.data import Order, Packing
from harness.launcher.runs import Run, run_dir, sweep_dir
from harness.launcher.stages.data_lines import data_lines
from harness.records.run.provenance import SetFacts, SourceFacts
from tests.launcher.support import configs, facts

SOURCE = SourceFacts("c", 2, 1200, 51_200, True, 0.05, "documents", [], {})


WAYS = [
    (Packing.concatenate, Order.random),
    (Packing.best_fit, Order.blocks),
    (Packing.best_fit, Order.length),
]


def lines(tmp_path: Path, draws: tuple[int, ...] = (200,), **fields) -> list[str]:
    source = dataclasses.replace(SOURCE, **fields)
    made = configs(tmp_path, seeds=range(len(draws)), variants=("mha",))
    described = [dataclasses.replace(facts(c), draws={"own": n}, sources={"own": source}) for c, n in
                 zip(made, draws, strict=True)]  # fmt: skip
    return data_lines([Run(c, f, run_dir(sweep_dir(made), c)) for c, f in zip(made, described, strict=True)])


CASES = {
    "2 files, 1,200 documents, about 51.2k training tokens, read 0.5 times; held out: 5 %": {},
    "1 file, 1 document, ": {"files": 1, "documents": 1},
    ", 51.2k training tokens": {"is_estimate": False},
    "read 3.6 times": {"train_tokens": 7111},
    "held out: the last 5 % of the document": {"split": "tails", "documents": 1},
    "held out: the last 5 % of each document": {"split": "tails", "documents": 2},
    "held out: 50 %, since documents stay whole (data.holdout=0.05)": {"heldout_share": 0.5},
    "2 files, about 1.2k documents, about 51.2k training tokens (from a sample: not tokenised yet), read 0.5 "
    "times; held out: about 5 %": {"is_sampled": True},
    "2 files, about 51.2k training tokens": {"split": "files", "documents": 2},
    "held out: 5 %, in whole files, since nothing tells where documents begin": {"split": "files"},
    "held out: its validation files, 50 % of all": {"split": "validation", "heldout_share": 0.5},
    "read 256 times": {"train_tokens": 100},
    "read less than 0.001 times": {"train_tokens": 10**9},
    "; not read: 2 hidden (.git, ...), 1 linked again (a\\x1b)": {
        "skipped": ["2 hidden (.git, ...)", "1 linked again (a\x1b)"]
    },
}


@pytest.mark.parametrize(("said", "fields"), CASES.items(), ids=CASES)
def test_what_a_source_holds_is_one_line(tmp_path, said, fields):
    line = lines(tmp_path, **fields)[0]
    assert line.startswith("  data own: ")
    assert said in line


def test_passes_of_several_runs_are_a_range(tmp_path):
    (line,) = lines(tmp_path, draws=(200, 400))
    assert "read 0.5 to 1 times" in line


def test_a_source_that_is_never_drawn_is_only_evaluated(tmp_path):
    (line,) = lines(tmp_path, draws=(0,))
    assert ", only evaluated; held out" in line


def test_facts_of_an_earlier_version_have_no_line(tmp_path):
    made = configs(tmp_path)
    assert data_lines([Run(c, facts(c), run_dir(sweep_dir(made), c)) for c in made]) == []


def test_a_text_that_is_read_too_often_has_a_sentence_with_both_amounts(tmp_path):
    _, said = lines(tmp_path, draws=(100, 200), train_tokens=512)
    assert said == (
        "  own is read 50 times: it has 512 training tokens, and scale.tokens=12800. "
        "After 4 passes tokens teach less each time: add text, or lower scale.tokens."
    )


def test_forty_two_passes_are_said(tmp_path):
    _, said = lines(tmp_path, draws=(168,), train_tokens=512, is_sampled=True)
    assert said.startswith("  own is read 42 times: it has about 512 training tokens, and scale.tokens=")


def test_packing_and_order_are_said_once_where_they_are_not_the_defaults(tmp_path):
    made = [dataclasses.replace(c, data=dataclasses.replace(c.data, packing=packing, order=order)) for c in
            configs(tmp_path) for packing, order in WAYS]  # fmt: skip
    said = data_lines([Run(c, facts(c), run_dir(sweep_dir(made), c)) for c in made])
    assert [line.split(":")[0] for line in said] == ["  packing", "  order", "  order"]
    assert "blocks of 1,024 neighbouring examples" in said[1]


def test_packed_rows_tell_what_stays_empty_what_is_cut_and_how_often_they_are_read(tmp_path):
    (said,) = lines(tmp_path, packed_rows=50, padding=0.0123, cut_documents=1)
    assert "read 4 times" in said
    assert said.endswith("; packed: 50 rows, of which 1.2 % stays empty; 1 document longer than a row cut")


def test_four_passes_are_not_too_many(tmp_path):
    assert len(lines(tmp_path, draws=(16,), train_tokens=512)) == 1


def test_a_padded_vocabulary_is_told_with_its_key(tmp_path):
    (made,) = configs(tmp_path, seeds=(0,), variants=("mha",))
    padded = dataclasses.replace(facts(made), shape={"vocabulary": 50_257}, paths={"embedding": [50_304, 8]})
    assert data_lines([Run(made, padded, run_dir(sweep_dir([made]), made))]) == [
        "  vocabulary: 50,257 tokens in 50,304 rows of embedding and head "
        "(model.vocabulary_multiple=128); the others are never predicted or trained"
    ]


SET = SetFacts("c", 1, 16_384, 1_234_567, False, 13, 0.031, 0.12)
SET_CASES = [
    (
        "  set new: 1 file, 16,384 of 1.23M tokens; 3.1 % of its windows stand in the training text and are "
        "left out, 12 % have any n-gram of 13 tokens in common with it",
        {},
    ),
    (": 2 files, about 16,384 of 1.23M tokens; how much of it stands in the training text is not known yet",
     {"files": 2, "is_estimate": True, "left_out_share": None, "touched_share": None}),
    ("; not compared with the training text", {"ngram": 0}),
    ("1,024 of 1.1k tokens, fewer than evaluation.tokens=16384; ", {"tokens": 1024, "available": 1100}),
]  # fmt: skip


@pytest.mark.parametrize(("said", "fields"), SET_CASES)
def test_a_validation_set_is_one_line(tmp_path, said, fields):
    made = configs(tmp_path, variants=("mha",), seeds=(0, 1))
    sets = {"new": dataclasses.replace(SET, **fields)}
    runs = [Run(c, dataclasses.replace(facts(c), sets=sets), run_dir(sweep_dir(made), c)) for c in made]
    (line,) = data_lines(runs)
    assert said in line


def test_a_set_that_is_mostly_left_out_is_a_sentence(tmp_path):
    made = configs(tmp_path, variants=("mha",), seeds=(0, 1))
    sets = {"new": dataclasses.replace(SET, left_out_share=0.6)}
    runs = [Run(c, dataclasses.replace(facts(c), sets=sets), run_dir(sweep_dir(made), c)) for c in made]
    assert [line for line in data_lines(runs) if "decontaminate=50" in line] == [
        "  more than half of set new is left out. If its tokens are as short as bytes, n-grams of 13 "
        "stand in any text: set evaluation.decontaminate=50."
    ]
