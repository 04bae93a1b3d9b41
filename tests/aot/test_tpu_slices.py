"""TPU slices that are offered."""

import math

import pytest

from harness.aot.tpu_slices import SLICES, check_slice, num_chips, slice_for
from harness.core.errors import UserError

MOST = {"v4": 4096, "v5e": 256, "v5p": 6144, "v6e": 256}
"""Chips of the largest job, docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}."""


def test_a_slice_has_as_many_chips_as_its_sides_multiply_to():
    assert slice_for("v5p", 512) == "v5p:8x8x8"
    assert slice_for("v5p", 6144) == "v5p:16x16x24"
    assert slice_for("v6e", 256) == "v6e:16x16"


@pytest.mark.parametrize("kind", SLICES)
def test_sides_are_as_the_documentation_says(kind):
    assert max(map(num_chips, SLICES[kind])) <= MOST[kind]
    for shape in SLICES[kind]:
        sides = [int(side) for side in shape.split("x")]
        assert sides == sorted(sides) or shape == "2x2x1"
        assert len(sides) == (2 if kind in ("v5e", "v6e") else 3)
        assert max(sides) <= 4 or len(sides) == 2 or math.gcd(*sides) % 4 == 0


@pytest.mark.parametrize("kind", SLICES)
def test_of_each_size_there_is_one(kind):
    sizes = [num_chips(shape) for shape in SLICES[kind]]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(
    ("topology", "said"),
    [
        ("v5p:7x7x7", "nearest is v5p:4x8x8 (256 chips)"),
        ("v5p:16x16x32", "nearest is v5p:16x16x24 (6,144 chips)"),
        ("v6e:16x32", "nearest is v6e:16x16 (256 chips)"),
        ("v7:4x4x4", "topology=v7 is not a known TPU kind"),
        ("v5p:many", "topology=many is not a shape"),
        ("v5p", "topology= is not a shape"),
    ],
)
def test_another_is_refused_in_a_sentence(topology, said):
    with pytest.raises(UserError) as refused:
        check_slice(topology)
    assert said in str(refused.value)


def test_a_number_of_chips_without_a_slice_names_the_nearest():
    with pytest.raises(
        UserError, match=r"no slice of v5p has 500 chips; the nearest is v5p:8x8x8 \(512 chips\)"
    ):
        slice_for("v5p", 500)
