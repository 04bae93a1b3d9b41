"""A sweep that is trained anew leaves the files that it left, and its runs are the runs that they were."""

from __future__ import annotations

import pytest

from tests.golden.support import (
    SWEEP,
    check_list,
    expected,
    file_names,
    harness,
    one_seed,
    read_json,
    unpack,
)  # fmt: skip

ADDED_FACTS = (
    "divisors",
    "ends_decayed",
    "fp8_parameters",
    "gradient_bytes",
    "kernels",
    "metrics",
    "row",
    "row_dtype",
    "rows",
    "saved_scores",
    "scanned",
    "sets",
    "sources",
    "tokenizer",
    "weight_bytes",
)
"""Facts that are newer than the stored sweep."""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fresh")
    done = harness("sweep", *one_seed(), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / SWEEP


def test_its_files_have_the_names_that_they_had(fresh):
    check_list("files", file_names(fresh))


@pytest.mark.parametrize("name", ["xs/mha/seed0", "xs/short/seed0"])
def test_its_runs_are_the_runs_that_were_stored(fresh, name, tmp_path):
    made, stored = (read_json(root / name / "run.json") for root in (fresh, unpack(tmp_path) / SWEEP))
    assert made["identity"] == stored["identity"] == expected()["identities"][name]
    assert made.keys() == stored.keys()
    added = {key: made["facts"].pop(key) for key in ADDED_FACTS}
    assert made["facts"] == stored["facts"]
    assert sorted(added["sources"]) == ["code", "prose"]
    assert len(added["tokenizer"]) == 64
