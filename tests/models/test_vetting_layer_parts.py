"""Mechanisms from outside, right and wrong."""

from dataclasses import dataclass

import jax.numpy as jnp
import pytest
from flax import nnx

from harness.core.errors import UserError
from harness.models import MatmulFlops
from harness.models.layers import project
from harness.models.parameters import weight
from harness.models.registry import register_attention
from harness.models.vetting import layer_parts
from harness.models.vetting.layer_parts import check_layer_parts


@dataclass(frozen=True)
class Options:
    said: float = 1.0
    """Times what its products are."""
    first: int = 0
    """Tokens before its own (after it, where negative) that the last one it sees is."""
    documents: bool = True


@register_attention(
    "sum",
    Options,
    model_flops=lambda context, options: 0.0,
    executed_flops=lambda context, options: MatmulFlops(
        weights=options.said * 2.0 * context.shape.width**2,
        activations=2.0 * context.sequence_length * context.shape.width,
    ),
    cache_bytes=lambda context, options, bytes_per_value: 0.0,
)
class Sum(nnx.Module):
    """The sum of what it sees, times a matrix."""

    def __init__(self, context, options):
        self.options = options
        self.weight = weight(
            (context.shape.width, context.shape.width), ("width", None), fan_in=context.shape.width
        )

    def __call__(self, x_BTD, rotary):
        place_T = jnp.arange(x_BTD.shape[1])
        seen_BTT = (place_T[:, None] - place_T >= self.options.first)[None]
        if self.options.documents and rotary.document_BT is not None:
            seen_BTT = seen_BTT & (rotary.document_BT[:, :, None] == rotary.document_BT[:, None])
        return project(seen_BTT.astype(x_BTD.dtype) @ x_BTD, self.weight)


def test_one_that_keeps_its_word_passes_every_check(small, monkeypatch):
    passed = []
    for name in ("_check_flop_count", "_check_causal", "_check_documents"):
        check = getattr(layer_parts, name)
        monkeypatch.setattr(
            layer_parts,
            name,
            lambda *given, name=name, check=check: check(*given) or passed.append(name),
        )
    check_layer_parts(small("sum", layers=1, end=3).spec)
    assert passed == ["_check_flop_count", "_check_causal", "_check_documents"]
    check_layer_parts(small("sum", layers=1, options={"first": 3, "documents": False}).spec)
    assert passed[3:] == ["_check_flop_count", "_check_causal"]


@pytest.mark.parametrize(
    ("options", "end", "sentence"),
    [
        ({"said": 0.5}, None, "executed_flops is 320 per token in layer 0, but the products take 384"),
        ({"first": -1}, None, "is not causal"),
        ({"documents": False}, 3, "data.mask_documents=true"),
    ],
)
def test_one_that_does_not_is_refused(small, options, end, sentence):
    with pytest.raises(UserError, match=sentence):
        check_layer_parts(small("sum", options=options, end=end).spec)


def test_one_inside_a_pattern_is_found(small):
    cycle = [{"name": "mha"}, {"name": "sum", "options": {"first": -1}}]
    with pytest.raises(UserError, match="pattern: layer 1"):
        check_layer_parts(small("pattern", options={"cycle": cycle}).spec)
