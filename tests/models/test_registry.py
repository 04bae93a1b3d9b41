"""A mistake in a mechanism's name or options is one sentence; a variant is one class."""

from dataclasses import dataclass

import pytest

from harness.core.errors import UserError
from harness.models import registry
from harness.models.attention import grouped_query
from harness.models.registry import register_attention


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("windwo", {}, "did you mean 'window'?"),
        ("window", {"windw": 4}, "did you mean 'window'?"),
        ("window", {"window": "4"}, "Give a value of type int"),
        ("window", {"window": True}, "Give a value of type int"),
        ("window", {}, "window is missing"),
        ("window", {"window": 17}, "outside the context"),
        ("window", {"window": 0}, "outside the context"),
        ("window", {"window": 4, "kv_heads": 3}, "Choose one of 1, 2, 4"),
        ("gated", {"kv_heads": 3}, "Choose one of 1, 2, 4"),
        ("nope", {"kv_heads": -1}, "Choose one of 1, 2, 4"),
        ("gqa", {"kv_heads": 3}, "Choose one of 1, 2, 4"),
        ("gqa", {"kv_heads": 0}, "Choose one of 1, 2, 4"),
        ("mha", {"window": 4}, "model.attention.options.window does not exist"),
        ("mha", {"softcap": 0}, "softcap=0 must be above 0"),
        ("mha", {"softcap": "50"}, "Give a value of type float or null"),
        ("mla", {"latent": 0, "rotary": 2}, "latent=0 must be between 1 and 8"),
        ("mla", {"latent": 9, "rotary": 2}, "latent=9 must be between 1 and 8"),
        (
            "mla",
            {"latent": 4, "rotary": 3},
            "rotary=3 is not an even divisor of model.head_width=4. Choose one of 2, 4",
        ),
        ("mla", {"latent": 4, "rotary": 0}, "Choose one of 2, 4"),
        (
            "gated_delta",
            {"chunk": 12},
            "chunk=12: use a power of two, at most data.sequence_length=16. Choose 16",
        ),
        ("gated_delta", {"chunk": 0}, "chunk=0: use a power of two"),
        ("gated_delta", {"chunk": 32}, "chunk=32: use a power of two, at most"),
    ],
)
def test_mistakes_name_the_key_and_the_way_out(small, name, options, said):
    with pytest.raises(UserError) as caught:
        small(name, options=options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


MHA = {"name": "mha"}


@pytest.mark.parametrize(
    ("cycle", "said"),
    [
        ([], "cycle=[] must be a list of at least one"),
        (None, "cycle=None must be a list of at least one"),
        ("mha", "cycle='mha' must be a list of at least one"),
        (["mha"], "cycle[0]='mha' must have the form {name: NAME"),
        ([MHA, {"nam": "mha"}], "cycle[1]={'nam': 'mha'} must have the form"),
        ([MHA, {"name": "gqq"}], "cycle[1].name=gqq is not registered: did you mean 'gqa'?"),
        ([MHA, {"name": "gqa", "options": 2}], "cycle[1].options=2 must be a mapping"),
        ([MHA, {"name": "gqa"}], "cycle[1].options.kv_heads is missing"),
        ([MHA, {"name": "gqa", "options": {"kv_heads": 3}}], "cycle[1].options.kv_heads=3 does not divide"),
        (
            [{"name": "pattern", "options": {"cycle": [MHA, MHA]}}],
            "cycle[0].name=pattern is a pattern itself",
        ),
    ],
)
def test_a_mistake_in_a_pattern_names_its_place(small, cycle, said):
    with pytest.raises(UserError) as caught:
        small("pattern", options={"cycle": cycle})
    assert f"model.attention.options.{said}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_users_mechanism_is_one_decorated_class(small, monkeypatch):
    monkeypatch.setitem(registry.ATTENTION.entries, "mine", None)

    @dataclass(frozen=True)
    class Options:
        scale: float = 1.0

    one = grouped_query.GroupedOptions(kv_heads=1)

    @register_attention(
        "mine",
        Options,
        model_flops=lambda context, options: grouped_query.model_flops(context, one),
        executed_flops=lambda context, options: grouped_query.executed_flops(context, one),
        cache_bytes=lambda context, options, bytes_per_value: grouped_query.cache_bytes(
            context, one, bytes_per_value
        ),
    )
    class Mine(grouped_query.SoftmaxAttention):
        def __init__(self, context, options):
            super().__init__(context, one)

    model = small("mine", options={"scale": 2})
    assert model.param_specs["layers.0.attention.key"].shape == (8, 1, 4)
    none = {count: lambda *_: 0.0 for count in ("model_flops", "executed_flops", "cache_bytes")}
    with pytest.raises(UserError, match="Rename one"):
        register_attention("mine", Options, **none)(grouped_query.SoftmaxAttention)
