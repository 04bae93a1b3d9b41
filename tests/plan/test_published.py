"""The planner against published runs; skipped where the table of them is not beside the checkout."""

import dataclasses
import math

import numpy as np
import pytest

from harness.estimate.calibration import FITTED_CALIBRATION, Calibration
from harness.plan import predict
from harness.plan.calibration.published_run import publication_of, read_published_run
from harness.plan.calibration.uncertainty import REMEMBERED_WEIGHT
from harness.plan.validation import (
    convention_flops,
    cross_validate,
    fit_calibration,
    leave_one_source_out,
    observed_seconds,
)
from tests.plan import validation


@pytest.fixture(scope="module")
def seen():
    return validation.rows()


def test_step_times_hold_leaving_one_source_out(seen):
    rows = cross_validate(seen)
    assert len(rows) >= 40
    assert np.mean([row.error for row in rows]) <= 0.15
    assert np.mean([row.inside for row in rows]) >= 0.9
    assert np.median([row.width for row in rows]) <= 0.30


def test_nothing_is_fitted_to_a_source_that_is_left_out(seen):
    """A source whose every step is told ten times too long changes nothing of its own prediction."""
    wrong = [
        dataclasses.replace(one, published_seconds=10 * one.published_seconds)
        if "maxtext" in one.run.source
        else one
        for one in seen
    ]
    for (one, known), (_, other) in zip(leave_one_source_out(seen), leave_one_source_out(wrong), strict=True):
        assert (known == other) == ("maxtext" in one.run.source)


def test_the_constants_in_the_code_are_those_of_the_fit(seen):
    found = fit_calibration(seen)
    rounded = Calibration(round(found.factor, 4), round(found.spread, 4), found.groups, found.rows)
    assert rounded == FITTED_CALIBRATION


def test_the_page_shows_what_is_achieved(seen):
    """Writes the table anew where it differs, and fails so that it is looked at and committed."""
    now = validation.page(seen)
    was = validation.PAGE.read_text() if validation.PAGE.exists() else ""
    if now != was:
        validation.PAGE.write_text(now)
    assert now == was, "docs/planning.md was written anew: look at the difference and commit it"


def test_remembered_rows_count_half_and_are_less_certain(seen):
    plain = next(one for one in seen if not one.run.remembered_notes)
    doubtful = dataclasses.replace(
        plain, run=dataclasses.replace(plain.run, remembered_notes=("remembered: x",))
    )
    assert FITTED_CALIBRATION.log_half_width(
        doubtful.uncertainty_sources
    ) > FITTED_CALIBRATION.log_half_width(plain.uncertainty_sources)
    other = dataclasses.replace(
        doubtful, run=dataclasses.replace(doubtful.run, source="other"), predicted_seconds=1e-9
    )
    one = dataclasses.replace(plain, published_seconds=1.0, predicted_seconds=1.0)
    two = dataclasses.replace(other, published_seconds=math.e, predicted_seconds=1.0)
    assert math.log(fit_calibration([one, two]).factor) == pytest.approx(
        REMEMBERED_WEIGHT / (1 + REMEMBERED_WEIGHT)
    )


ROW = {
    "id": "a",
    "params_B": 18.4,
    "layers": 40,
    "d_model": 6144,
    "heads": 48,
    "ff": 24576,
    "vocab": 51200,
    "seq": 2048,
    "batch_seqs": 1024,
    "chips": 256,
    "chip": "A100-80G",
    "peak_tflops_bf16": 312,
    "tp": 8,
    "remat": "full",
}


def test_conventions_are_those_of_their_sources():
    """Megatron's 96 B s l h^2 (1 + s / 6h + V / 16lh), and 72 B s l h^2 (1 + s / 6h + V / 12lh) without
    recomputation (arXiv:2104.04473, appendix): a few per mille apart, for norms and biases."""
    b, s, l, h, v = 1024, 2048, 40, 6144, 51200
    hardware = {**ROW, "tflops_per_dev": 135, "flops_convention": "HARDWARE: counts full recompute"}
    model = read_published_run(ROW).model
    told = 96 * b * s * l * h * h * (1 + s / (6 * h) + v / (16 * l * h))
    assert convention_flops(hardware, model) == pytest.approx(told, rel=0.02)
    plain = {**ROW, "tflops_per_dev": 135, "flops_convention": "model FLOPs (no recompute)"}
    told = 72 * b * s * l * h * h * (1 + s / (6 * h) + v / (12 * l * h))
    assert convention_flops(plain, model) == pytest.approx(told, rel=0.02)
    six = {**ROW, "tflops_per_dev": 135, "flops_convention": "6ND"}
    assert convention_flops(six, model) == pytest.approx(6 * 18.4e9 * b * s, rel=0.02)
    causal = {**ROW, "tflops_per_dev": 135, "flops_convention": "model FLOPs, causal attention"}
    assert convention_flops(causal, model) == pytest.approx(model.step_flops)


def test_a_step_is_told_in_three_ways():
    model = read_published_run(ROW).model
    assert observed_seconds({**ROW, "step_time_s": "9.5"}, model) == 9.5
    assert observed_seconds({**ROW, "tokens_s_dev": 1000}, model) == pytest.approx(1024 * 2048 / 256e3)
    share = {**ROW, "mfu_pct": 40, "flops_convention": "model FLOPs, causal"}
    assert observed_seconds(share, model) == pytest.approx(model.step_flops / (256 * 0.4 * 312e12))
    assert observed_seconds(ROW, model) is None


def test_tables_of_one_repository_are_one_source():
    one = publication_of({"source": "NVIDIA/Megatron-LM README image cases.png"})
    assert one == publication_of({"source": "NVIDIA/Megatron-LM README text (strong scaling)"})
    assert publication_of({"source": "gist x; arXiv 2201.11990"}) == "arXiv:2201.11990"


def test_a_batch_in_round_tokens_can_be_shared_out():
    """4 M tokens of 4,096 are 976.6 sequences, which no layout divides."""
    row = {**ROW, "batch_seqs": "", "batch_tokens": 4e6, "seq": 4096}
    batch = read_published_run(row).model.batch
    assert batch % 32 == 0
    assert batch * 4096 == pytest.approx(4e6, rel=0.02)
    assert read_published_run({**row, "batch_tokens": 100 * 4096}).model.batch == 100


@pytest.mark.parametrize(("source", "turns"), [("arXiv:2211.05100", 1), ("arXiv:2407.21783", 2)])
def test_stages_were_even_before_2023(source, turns):
    """Llama 3 has 126 layers in 16 stages: two fewer than 128, for embedding and head."""
    row = {**ROW, "source": source, "layers": 126, "pp": 16, "chips": 256}
    assert read_published_run(row).layout.virtual == turns
    assert read_published_run({**row, "layers": 128}).layout.virtual == 2


def test_every_chip_of_a_published_run_trained():
    """1,000 sequences over 2,000 chips divide by no axis of ours; the row's speed is still that of all."""
    row = {**ROW, "tp": "", "chips": 2000, "batch_seqs": 1000, "source": "one"}
    many, few = (predict({**row, "chips": chips}) for chips in (2000, 1000))
    assert many.step_seconds.value < 0.75 * few.step_seconds.value
    assert many.mfu.value == pytest.approx(few.mfu.value, rel=0.3)
