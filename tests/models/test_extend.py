"""What a user's module may import, and names of earlier versions, which work with a warning."""

import inspect

import pytest

from harness import extend
from harness.config.schema.run import ModuleConfig
from harness.models import registry
from harness.models.attention import grouped_query

DIMS = extend.ModelDims(width=16, layers=2, heads=4, head_width=4, ffn=24, vocabulary=32)
CONTEXT = extend.LayerContext(DIMS, layer=0, sequence_length=16, qk_norm=True, norm_epsilon=1e-6)


def test_each_import_is_described():
    assert extend.__doc__ is not None
    assert [name for name in extend.__all__ if f"`{name}`" not in extend.__doc__] == []
    assert all(inspect.getdoc(getattr(extend, name)) for name in extend.__all__ if name[0].isupper())


def test_old_arguments_and_attributes_work_with_a_warning(monkeypatch):
    monkeypatch.setitem(registry.ATTENTION.entries, "old", None)
    with pytest.warns(DeprecationWarning, match="'splits' is now called 'supports_sequence_parallel'"):
        extend.register_attention(
            "old",
            grouped_query.GroupedOptions,
            model_flops=lambda site, options: 1.0,
            executed_flops=lambda site, options: extend.MatmulFlops(site.sequences * site.parts),
            cache_bytes=lambda site, options, each: 0.0,
            splits=lambda site, options: True,
        )(grouped_query.SoftmaxAttention)
    configured = registry.ATTENTION.lookup(ModuleConfig("old"))
    assert configured.supports_sequence_parallel(CONTEXT)
    with pytest.warns(DeprecationWarning, match="'parts' is now called 'sequence_shards'"):
        assert configured.executed_flops(CONTEXT).total == 1
