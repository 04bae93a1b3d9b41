"""What `touches` declares is compared, and only that: batches at equal tokens, matched FLOPs, schedules."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from harness.compare.results.verdict_types import Decision
from harness.compare.verdict.checks import REMEDIES
from harness.compare.verdict.flags import BLOCKING, EXPLANATIONS
from harness.records.run.stream_hash import StreamHash
from tests.compare.judging import is_treatment, judged
from tests.compare.synthetic import Recipe

RECIPE = Recipe(with_steps=False, seeds=(0, 1, 2), scales={"xs": 10**7, "s": 3 * 10**7})
BATCH, EXAMPLES = 8, 512
REPORT = Path(__file__).parents[2] / "docs" / "statistics.md"


def stream(seed: int, batch: int, examples: int = EXAMPLES) -> dict:
    """Return the record of a stream that a data seed orders, read in whole batches."""
    ids = np.random.default_rng(seed).integers(0, 2**63, EXAMPLES, dtype=np.uint64).astype("<u8")
    read = StreamHash.of_run(examples)
    for start in range(0, examples // batch * batch, batch):
        read = read.update(ids[start : start + batch].tobytes())
    return read.to_json()


def with_batches(touches, factor=2, batch=12, other_order=False):
    """Return an edit that gives the treatment larger batches and a stream of its own reading."""

    def edit(draft):
        draft.examples["stream"] = stream(draft.seed, BATCH)
        if is_treatment(draft):
            draft.run["touches"] = touches
            draft.facts["steps"] //= factor
            draft.facts["tokens_per_step"] *= factor
            order = draft.seed + 100 * other_order
            draft.examples = {"steps": 42, "hash": "f" * 64, "stream": stream(order, batch)}

    return edit


@pytest.mark.parametrize("touches", [["scale.batch"], ["scale"], ["scale.batch", "optimizer"]])
def test_a_declared_batch_is_compared_at_equal_tokens_over_one_stream(tmp_path, touches):
    comparison = judged(tmp_path, RECIPE, with_batches(touches))
    for rung in comparison.rungs:
        assert rung.paired
        assert not BLOCKING.intersection(rung.flags)
        assert "ORDER_UNVERIFIED" not in rung.flags
        assert rung.decision is not Decision.INVALID


def test_another_stream_is_another_order_whatever_the_batches(tmp_path):
    comparison = judged(tmp_path, RECIPE, with_batches(["scale.batch"], other_order=True))
    assert all("DATA_ORDER_MISMATCH" in rung.flags and not rung.paired for rung in comparison.rungs)


def test_a_stream_that_was_not_recorded_is_said_to_be_unproven(tmp_path):
    edit = with_batches(["scale.batch"])

    def unrecorded(draft):
        edit(draft)
        draft.examples.pop("stream")

    comparison = judged(tmp_path, RECIPE, unrecorded)
    assert all("ORDER_UNVERIFIED" in rung.flags for rung in comparison.rungs)
    assert not BLOCKING.intersection(*[rung.flags for rung in comparison.rungs])


def test_an_undeclared_batch_is_another_schedule(tmp_path):
    comparison = judged(tmp_path, RECIPE, with_batches(["model.attention"]))
    assert all("SCHEDULE_MISMATCH" in rung.flags for rung in comparison.rungs)


@pytest.mark.parametrize(("steps_off", "blocked"), [(0.9, False), (1.1, True)])
def test_the_ends_of_declared_batches_may_differ_by_one_step_of_the_larger(tmp_path, steps_off, blocked):
    edit = with_batches(["scale.batch"])

    def shorter(draft):
        edit(draft)
        if is_treatment(draft):
            off = int(steps_off * draft.facts["tokens_per_step"])
            draft.run["tokens"] -= off
            for row in draft.evals:
                row["tokens"] -= off * (row["step"] == draft.status["steps"])

    comparison = judged(tmp_path, RECIPE, shorter)
    assert all(("UNEQUAL_TOKENS" in rung.flags) is blocked for rung in comparison.rungs)


def test_another_data_seed_is_never_excused(tmp_path):
    def edit(draft):
        if is_treatment(draft):
            draft.run["touches"] = ["data"]
            draft.run["data_seed"] += 50
            draft.config["data_seed"] += 50

    comparison = judged(tmp_path, RECIPE, edit)
    assert all("DATA_ORDER_MISMATCH" in rung.flags for rung in comparison.rungs)


def test_a_declared_mask_leaves_the_examples_as_they_are(tmp_path):
    def edit(draft):
        if is_treatment(draft):
            draft.run["touches"] = ["data.mask_documents"]
            draft.examples["hash"] = "f" * 64

    comparison = judged(tmp_path, RECIPE, edit)
    assert all("DATA_ORDER_MISMATCH" in rung.flags for rung in comparison.rungs)


@pytest.mark.parametrize(
    ("touches", "flagged"),
    [
        (["scale.batch"], True),
        (["schedule"], True),
        (["optimizer.name"], True),
        (["optimizer.learning_rate"], False),
        (["scale.batch", "optimizer.learning_rate"], False),
        (["model.attention"], False),
    ],
)
def test_where_the_best_learning_rate_may_move_it_is_tuned_or_declared(tmp_path, touches, flagged):
    def edit(draft):
        draft.run["touches"] = touches

    assert all(("UNEQUAL_TUNING" in rung.flags) is flagged for rung in judged(tmp_path, RECIPE, edit).rungs)
    points = {"points": 5, "edge": False, "seed": 99}
    beside = {"tuning": {"mha": points, "hybrid": points}}
    tuned = judged(tmp_path / "tuned", dataclasses.replace(RECIPE, beside=beside), edit)
    assert all("UNEQUAL_TUNING" not in rung.flags for rung in tuned.rungs)


def test_every_flag_has_a_way_out_and_a_row_in_the_documents():
    assert REMEDIES.keys() == EXPLANATIONS.keys()
    section = REPORT.read_text().partition("\n## Checks\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if re.match(r"\| `[A-Z_]+` \|", line)]
    assert rows == [
        f"| `{flag}` | {'blocks' if flag in BLOCKING else 'warns'} | {meaning} | {REMEDIES[flag]} |"
        for flag, meaning in EXPLANATIONS.items()
    ]
