"""Mechanisms from outside, right and wrong."""

from dataclasses import dataclass

import jax.numpy as jnp
import pytest
from flax import nnx

from harness.core.errors import UserError
from harness.models import Products, mechanism_checks
from harness.models.layers import project
from harness.models.mechanism_checks import vet
from harness.models.parameters import weight
from harness.models.registry import attention


@dataclass(frozen=True)
class Options:
    said: float = 1.0
    """Times what its products are."""
    first: int = 0
    """Tokens before its own (after it, where negative) that the last one it sees is."""
    documents: bool = True


@attention(
    "sum",
    Options,
    model_flops=lambda site, options: 0.0,
    executed_flops=lambda site, options: Products(
        weights=options.said * 2.0 * site.shape.width**2,
        activations=2.0 * site.sequence_length * site.shape.width,
    ),
    cache_bytes=lambda site, options, each: 0.0,
)
class Sum(nnx.Module):
    """The sum of what it sees, times a matrix."""

    def __init__(self, site, options):
        self.options = options
        self.weight = weight((site.shape.width, site.shape.width), ("width", None), fan_in=site.shape.width)

    def __call__(self, x_BTD, rotary):
        place_T = jnp.arange(x_BTD.shape[1])
        seen_BTT = (place_T[:, None] - place_T >= self.options.first)[None]
        if self.options.documents and rotary.document_BT is not None:
            seen_BTT = seen_BTT & (rotary.document_BT[:, :, None] == rotary.document_BT[:, None])
        return project(seen_BTT.astype(x_BTD.dtype) @ x_BTD, self.weight)


def test_one_that_keeps_its_word_passes_every_check(small, monkeypatch):
    passed = []
    for name in ("_check_count", "_check_causal", "_check_documents"):
        check = getattr(mechanism_checks, name)
        monkeypatch.setattr(
            mechanism_checks,
            name,
            lambda *given, name=name, check=check: check(*given) or passed.append(name),
        )
    vet(small("sum", layers=1, end=3).blueprint)
    assert passed == ["_check_count", "_check_causal", "_check_documents"]
    vet(small("sum", layers=1, options={"first": 3, "documents": False}).blueprint)
    assert passed[3:] == ["_check_count", "_check_causal"]


@pytest.mark.parametrize(
    ("options", "end", "sentence"),
    [
        ({"said": 0.5}, None, "executed_flops says 320 FLOPs a token in layer 0, but its products are 384"),
        ({"first": -1}, None, "depends on later ones"),
        ({"documents": False}, 3, "data.mask_documents=true"),
    ],
)
def test_one_that_does_not_is_refused(small, options, end, sentence):
    with pytest.raises(UserError, match=sentence):
        vet(small("sum", options=options, end=end).blueprint)


def test_one_inside_a_pattern_is_found(small):
    cycle = [{"name": "mha"}, {"name": "sum", "options": {"first": -1}}]
    with pytest.raises(UserError, match="pattern: in layer 1"):
        vet(small("pattern", options={"cycle": cycle}).blueprint)
