"""Variants of a scale are equal within 1 %, from 20 thousand parameters to 10 trillion."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.schema.run import MatchBy, ModelConfig, ModuleConfig
from harness.core.errors import UserError
from harness.models.flops import model_flops
from harness.models.model_spec import ModelSpec
from harness.models.sizing import choose_dims, count_non_embedding, typical_aspect

VARIANTS = (
    ModuleConfig("mha"),
    ModuleConfig("gqa", {"kv_heads": 1}),
    ModuleConfig(
        "pattern", {"cycle": [*[{"name": "window", "options": {"window": 64}}] * 3, {"name": "gated_delta"}]}
    ),
    ModuleConfig("mla", {"latent": 16, "rotary": 8}),
)
TARGETS = st.floats(4.302, 13.0).map(lambda exponent: round(10**exponent))


@settings(max_examples=25, deadline=None)
@given(TARGETS, st.sampled_from([16, 32]))
def test_parameters_are_met_and_the_rest_is_shared(target, head_width):
    head_width = 128 if target > 1e9 else head_width
    shapes = []
    for attention in VARIANTS:
        model = ModelConfig(attention=attention, head_width=head_width)
        shape = choose_dims(model, target, 512, 128)
        assert count_non_embedding(ModelSpec(model, shape, 128)) == pytest.approx(target, rel=0.005)
        shapes.append(shape)
    assert len({(s.width, s.layers, s.heads) for s in shapes}) == 1
    assert shapes[0].width == shapes[0].heads * head_width
    # Heads come in round numbers, so a small model may be up to twice as wide or half as wide as usual.
    slack = 2 if target > 1e7 else 4
    assert 1 / slack < shapes[0].width / shapes[0].layers / typical_aspect(target) < slack
    assert 1 < shapes[0].ffn / shapes[0].width < 6


@settings(max_examples=15, deadline=None)
@given(TARGETS)
def test_flops_are_matched_or_left_alone(target):
    plain_model = ModelConfig(head_width=16)
    plain = choose_dims(plain_model, target, 512, 128)
    wanted = model_flops(ModelSpec(plain_model, plain, 128))
    for attention in VARIANTS[1:]:
        matched = ModelConfig(attention=attention, head_width=16, match=MatchBy.flops)
        blueprint = ModelSpec(matched, choose_dims(matched, target, 512, 128), 128)
        assert model_flops(blueprint) == pytest.approx(wanted, rel=0.005)
        alone = ModelConfig(attention=attention, head_width=16, match=MatchBy.none)
        assert choose_dims(alone, target, 512, 128) == plain


@settings(max_examples=10, deadline=None)
@given(TARGETS.filter(lambda target: target > 10**6), st.sampled_from(["dropless", "capacity"]))
def test_experts_are_matched_in_parameters_or_flops(target, dispatch):
    """Below five million a column of all eight experts may be too coarse: then the nearest size is named."""
    plain = choose_dims(ModelConfig(head_width=16), target, 512, 128)
    wanted = model_flops(ModelSpec(ModelConfig(head_width=16), plain, 128))
    experts = ModuleConfig("moe", {"shared": 1, "dispatch": dispatch})
    for match, measure, goal in (
        (MatchBy.params, count_non_embedding, target),
        (MatchBy.flops, model_flops, wanted),
    ):
        model = ModelConfig(feedforward=experts, head_width=16, match=match)
        shape, refusal = None, ""
        try:
            shape = choose_dims(model, target, 512, 128)
        except UserError as error:
            refusal = str(error)
        if shape is None:
            assert target < 5 * 10**6, refusal
            assert "nearest" in refusal
            continue
        assert measure(ModelSpec(model, shape, 128)) == pytest.approx(goal, rel=0.005)
        assert (shape.width, shape.layers, shape.heads) == (plain.width, plain.layers, plain.heads)


def test_ffn_is_as_round_as_the_tolerance_allows():
    assert choose_dims(ModelConfig(), 10**9, 512, 128).ffn % 64 == 0


def test_entries_of_the_config_are_kept():
    assert (
        choose_dims(ModelConfig(width=48, layers=2, heads=4, ffn=100, head_width=16), 1, 512, 128).ffn == 100
    )
    shape = choose_dims(ModelConfig(width=64, layers=4, head_width=16), 200_000, 512, 128)
    assert (shape.width, shape.layers, shape.heads) == (64, 4, 4)
    assert choose_dims(ModelConfig(heads=8, head_width=16), 10**6, 512, 128).heads == 8


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (ModelConfig(width=512, layers=8), "The nearest has"),
        (ModelConfig(ffn=64, layers=2), "The nearest has"),
        (ModelConfig(head_width=5), "is odd"),
        (ModelConfig(width=40, head_width=16), "is not a multiple"),
    ],
)
def test_what_cannot_be_sized_is_said(model, said):
    with pytest.raises(UserError, match=said):
        choose_dims(model, 100_000, 512, 128)


def test_ten_trillion_take_milliseconds():
    choose_dims(ModelConfig(head_width=128), 10**13, 512, 128)
    start = time.process_time()
    choose_dims(ModelConfig(head_width=128), 10**13, 512, 128)
    assert time.process_time() - start < 0.5
