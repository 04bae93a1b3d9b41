"""Text that GPU and TPU compilers printed for programs whose work is known by hand: README beside them."""

from pathlib import Path

import pytest

from harness.aot.hlo import read_hlo

HERE = Path(__file__).parent / "hlo"


def printed(target):
    """The programs of a file, by name."""
    chunks = (HERE / f"{target}.txt").read_text().split("// ")[1:]
    return {chunk.split("\n", 1)[0]: chunk for chunk in chunks}


PRINTED = {target: printed(target) for target in ("tpu", "gpu")}

ROWS = 2 * 4096 * 512
"""Bytes of the array that the programs of one collective move: 4,096 rows of 512 in bf16."""

STEP = {
    "all-gather": 5 * 2 * 3 / 4 * (256 * 256 * 2),
    "reduce-scatter": 5 * 2 * 3 / 4 * (256 * 256 * 2),
    "all-reduce": 5 * 2 * (16 * 256 * 2) + 2 * 3 / 4 * 4,
}
"""Of `x + tanh(x A) B` over five layers, forward and backward: fsdp 4 gathers both weights once and scatters
both gradients, tensor 2 adds up x once each way (16 sequences a device), and the loss is summed over 4."""

LAYER = 2 * 256 * 512 * 512

FLOPS = {
    ("tpu", "mini"): 5 * (6 * 2 * 64 * 256 * 512) / 8,
    ("gpu", "mini"): 5 * (6 * 2 * 64 * 256 * 512) / 8,
    ("tpu", "nested"): 5 * 3 * LAYER,
    ("tpu", "down"): 4 * LAYER,  # from 10 by -3 while >= 0
    ("tpu", "carriedlimit"): 6 * LAYER,  # the limit stands in the loop's state
    ("gpu", "by2"): 3 * LAYER,  # 1, 3, 5
    ("tpu", "heads"): 2 * (3 * 4) * 128 * 128 * 64,  # bthd,bshd->bhts
    ("tpu", "grouped"): 2 * (2 * 2 * 3) * 128 * 128 * 64,  # btghd,bsgd->bghts
    ("tpu", "multi"): 2 * (2 * 128) * 256 * (4 * 64),  # bthd,hdm->btm
    ("tpu", "conv"): 2 * 2 * (13 * 13) * 128 * 256,  # 9 x 9 by 3 x 3, stride 2, same: 13 taps an axis
    ("gpu", "library"): 5 * LAYER,
    ("gpu", "librarybatch"): 2 * 6 * 128 * 256 * 384,
    ("tpu", "cploop"): 6 * 2 * 1024 * 512 * 512,
    ("tpu", "acf"): 6 * 2 * 4096 * 2048 * 2048,
}

BYTES = {
    ("tpu", "mini"): STEP,
    ("gpu", "mini"): STEP,
    ("tpu", "rs_b"): {"reduce-scatter": ROWS * 3 / 4},
    ("gpu", "rs_b"): {"reduce-scatter": ROWS * 3 / 4},
    ("gpu", "ag2"): {"all-gather": 2 * ROWS * 3 / 4},
    ("gpu", "a2a_b"): {"all-to-all": ROWS / 4 * 3 / 4},
    ("gpu", "cp2"): {"collective-permute": 2 * ROWS / 4},
    ("tpu", "cploop"): {"collective-permute": 6 * ROWS / 4},
    # A weight is gathered before the loop, and the next one in each turn, spread over three fusions.
    ("tpu", "acf"): {"all-gather": (1 + 6) * 3 / 4 * (2048 * 2048 * 2)},
    ("gpu", "ragged"): {"ragged-all-to-all": ROWS / 4 * 3 / 4},
    ("tpu", "ragged"): {"ragged-all-to-all": ROWS / 4 * 3 / 4},
}


@pytest.mark.parametrize(("target", "name"), FLOPS)
def test_products_of_printed_programs(target, name):
    counts = read_hlo(PRINTED[target][name])
    assert counts.dot_flops == FLOPS[target, name]
    assert counts.unknown_loops == counts.unread_kernels == ()


@pytest.mark.parametrize(("target", "name"), BYTES)
def test_traffic_of_printed_programs(target, name):
    assert read_hlo(PRINTED[target][name]).collective_bytes == BYTES[target, name]


def test_a_loop_of_unknown_length_counts_as_one_turn_and_is_named():
    """Its limit is an argument of the program."""
    counts = read_hlo(PRINTED["tpu"]["dyn"])
    assert counts.dot_flops == LAYER
    assert counts.unknown_loops == ("while",)


def test_a_tpu_notes_no_trip_counts():
    """So that what stands above of its loops was inferred."""
    assert "known_trip_count" not in (HERE / "tpu.txt").read_text()
    assert "known_trip_count" in PRINTED["gpu"]["mini"]


def test_the_largest_transfers_are_named_with_how_often_they_run():
    largest = read_hlo(PRINTED["tpu"]["mini"]).largest
    assert {found.times for found in largest[:5]} == {5}
    assert largest[0].kind == "reduce-scatter"
    assert largest[0].bytes == 2 * 3 / 4 * (256 * 256 * 2)
    assert sum(found.total for found in largest) == sum(STEP.values())
