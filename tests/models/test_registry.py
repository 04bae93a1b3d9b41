"""A mistake in a mechanism's name or options is one sentence; a variant is one class."""

from dataclasses import dataclass

import pytest

from harness.config.errors import UserError
from harness.models import registry
from harness.models.attention import core
from harness.models.registry import attention


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("hybird", {}, "did you mean 'hybrid'?"),
        ("hybrid", {"window": 4, "global_evry": 2}, "did you mean 'global_every'?"),
        ("hybrid", {"window": "4", "global_every": 2}, "give one of type int"),
        ("hybrid", {"window": True, "global_every": 2}, "give one of type int"),
        ("hybrid", {"window": 4}, "global_every is missing"),
        ("hybrid", {"window": 17, "global_every": 2}, "outside the context"),
        ("hybrid", {"window": 0, "global_every": 2}, "outside the context"),
        ("hybrid", {"window": 4, "global_every": -1}, "is negative"),
        ("gqa", {"kv_heads": 3}, "choose one of 1, 2, 4"),
        ("gqa", {"kv_heads": 0}, "choose one of 1, 2, 4"),
        ("mha", {"window": 4}, "model.attention.options.window does not exist"),
    ],
)
def test_mistakes_name_the_key_and_the_way_out(small, name, options, said):
    with pytest.raises(UserError) as caught:
        small(name, options=options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_users_mechanism_is_one_decorated_class(small, monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", {k: dict(v) for k, v in registry._REGISTERED.items()})

    @dataclass(frozen=True)
    class Options:
        scale: float = 1.0

    @attention(
        "mine",
        Options,
        model_flops=lambda site, options: core.model_flops(site, 1),
        executed_flops=lambda site, options: core.executed_flops(site, 1),
    )
    class Mine(core.Attention):
        def __init__(self, site, options):
            super().__init__(site, kv_heads=1)

    model = small("mine", options={"scale": 2})
    assert model.specs["layers.0.attention.key"].shape == (8, 1, 4)
    with pytest.raises(UserError, match="rename one"):
        attention("mine", Options, model_flops=lambda *_: 0.0, executed_flops=lambda *_: None)(core.Attention)
