"""What is said of a layout that does not fit: how far each change gets, by the same model."""

import dataclasses
import re

import pytest

from harness.config.schema.run import Remat
from harness.core.number_format import format_bytes
from harness.estimate.layout_limits import LayoutLimits
from harness.estimate.layouts import Layout, layout_overrides
from harness.estimate.ways_to_fit import layout_memory, shortage, ways_to_fit
from harness.plan import decoder_shape

LIMITS = LayoutLimits(divisors=(("fsdp", 1024), ("tensor", 16)))
MODEL = dataclasses.replace(
    decoder_shape(
        name="350m/mha/seed0", layers=24, width=1024, heads=16, head_width=64, ffn=2816, vocabulary=50_304,
        sequence=2048, batch=64,
    ),
    limits=LIMITS,
)  # fmt: skip
WIDE = Layout(data=4, microbatch=16)


def need(layout: Layout) -> float:
    return sum(layout_memory(MODEL, layout).values())


def test_each_change_alone_and_all_together_need_what_the_model_says():
    ways = ways_to_fit(MODEL, WIDE, 0.0, 64)
    assert [way.overrides for way in ways] == [
        "compute.remat=full",
        "compute.microbatches=16",
        "mesh.data=1 mesh.fsdp=64",
        "mesh.data=1 mesh.fsdp=64 compute.remat=full",
    ]
    assert [way.bytes for way in ways] == [need(way.layout) for way in ways]
    assert min(way.bytes for way in ways) == ways[-1].bytes


def test_the_smallest_change_that_fits_is_named():
    fits = need(dataclasses.replace(WIDE, microbatch=4))
    (micro,) = [
        way for way in ways_to_fit(MODEL, WIDE, fits, 64) if way.overrides.startswith("compute.micro")
    ]
    assert micro.overrides == "compute.microbatches=4"
    assert micro.layout.microbatch == 4


def test_shards_come_in_place_of_copies_first_and_divide_the_model():
    limit = need(dataclasses.replace(WIDE, data=2, fsdp=2))
    assert "mesh.data=2 mesh.fsdp=2" in [way.overrides for way in ways_to_fit(MODEL, WIDE, limit, 64)]
    assert "mesh.data=1 mesh.fsdp=4" in [way.overrides for way in ways_to_fit(MODEL, WIDE, 0.0, 4)]
    odd = dataclasses.replace(MODEL, limits=LayoutLimits(divisors=(("fsdp", 3),)))
    assert not any("fsdp" in way.overrides for way in ways_to_fit(odd, WIDE, 0.0, 64))


def test_it_is_one_sentence_after_the_other_with_numbers():
    limit = need(dataclasses.replace(WIDE, remat=Remat.full))
    text = shortage(MODEL, WIDE, limit, "80 % of an H100", 64)
    assert text.startswith(f"350m/mha/seed0 needs {format_bytes(need(WIDE))} a device, but has")
    assert f"compute.remat=full needs {format_bytes(limit)} and fits" in text
    assert "\n" not in text
    assert "more devices" not in text
    assert shortage(MODEL, WIDE, 1.0, "", 64).endswith(
        "Use more devices, shorter sequences or a smaller model."
    )
    assert len(re.findall(r"needs [\d.]+ [KMG]iB", text)) == 5


@pytest.mark.parametrize("layout", [WIDE, Layout(fsdp=8, tensor=2, microbatch=2, remat=Remat.dots)])
def test_overrides_say_all_of_a_layout(layout):
    values = dict(text.split("=") for text in layout_overrides(layout, 64))
    assert values["mesh.fsdp"] == str(layout.fsdp)
    assert int(values["compute.microbatches"]) * layout.microbatch * layout.data * layout.fsdp == 64
    assert values["compute.remat"] == layout.remat.value


def test_micro_batches_hold_the_sum_of_gradients_beside_their_own():
    whole, parts = (layout_memory(MODEL, Layout(microbatch=size)) for size in (64, 32))
    assert parts["gradients"] == 2 * whole["gradients"]
    assert parts["weights"] == whole["weights"]
    assert parts["activations"] == whole["activations"] / 2
