"""What a user's module may import, and names of earlier versions, which work with a warning."""

import inspect

import pytest

from harness import extend
from harness.config.schema.run import ModuleConfig
from harness.models import registry
from harness.models.attention import gated, grouped_query
from harness.models.diffusion.conditioning.base import Way

DIMS = extend.ModelDims(width=16, layers=2, heads=4, head_width=4, ffn=24, vocabulary=32)
CONTEXT = extend.LayerContext(DIMS, layer=0, sequence_length=16, qk_norm=True, norm_epsilon=1e-6)


def test_each_import_is_described():
    assert extend.__doc__ is not None
    assert [name for name in extend.__all__ if f"`{name}`" not in extend.__doc__] == []
    assert all(inspect.getdoc(getattr(extend, name)) for name in extend.__all__ if name[0].isupper())


def test_old_arguments_and_attributes_work_with_a_warning(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", {k: dict(v) for k, v in registry._REGISTERED.items()})
    with pytest.warns(DeprecationWarning, match="'splits' is now called 'supports_sequence_parallel'"):
        extend.register_attention(
            "old",
            grouped_query.GroupedOptions,
            model_flops=lambda site, options: 1.0,
            executed_flops=lambda site, options: extend.MatmulFlops(site.sequences * site.parts),
            cache_bytes=lambda site, options, each: 0.0,
            splits=lambda site, options: True,
        )(grouped_query.SoftmaxAttention)
    configured = registry.lookup("attention", ModuleConfig("old"))
    assert configured.supports_sequence_parallel(CONTEXT)
    with pytest.warns(DeprecationWarning, match="'parts' is now called 'sequence_shards'"):
        assert configured.executed_flops(CONTEXT).total == 1


def test_old_methods_of_softmax_attention_still_override():
    with pytest.warns(DeprecationWarning, match="'mix' is now called 'attend_heads'"):

        class Old(gated.GatedAttention):
            def mix(self, x_BTD, rotary):
                return super().mix(x_BTD, rotary)

    assert Old.attend_heads is Old.mix
    assert gated.GatedAttention.mix is gated.GatedAttention.attend_heads


def test_old_modulations_are_still_made():
    with pytest.warns(DeprecationWarning, match="BranchModulation"):
        way = Way(enter=abs, leave=abs)
    assert isinstance(way, extend.BranchModulation)
