"""What decoding keeps, in bytes, by hand for the tiny shape: three layers, four heads of width four."""

import pytest

from harness.config.schema.run import ComputeConfig, Precision
from tests.models.mechanisms import LOCAL

LAYERS, T = 3, 16

VALUES = {
    "mha": ("mha", {}, LAYERS * 2 * 4 * 4 * T),
    "gqa": ("gqa", {"kv_heads": 2}, LAYERS * 2 * 2 * 4 * T),
    "window": ("window", {"window": 5, "kv_heads": 1}, LAYERS * 2 * 1 * 4 * 5),
    "pattern": ("pattern", {"cycle": [LOCAL, {"name": "mha"}]}, 2 * 4 * 4 * (4 + T + 4)),
    "gated": ("gated", {"kv_heads": 2}, LAYERS * 2 * 2 * 4 * T),
    "nope": ("nope", {}, LAYERS * 2 * 4 * 4 * T),
    "mla": ("mla", {"latent": 6, "rotary": 2}, LAYERS * (6 + 2) * T),
    "gated_delta": ("gated_delta", {"chunk": 8}, LAYERS * 4 * 4 * 4),
}


@pytest.mark.parametrize(("name", "options", "values"), VALUES.values(), ids=VALUES)
def test_cache_is_what_decoding_reads_again(small, name, options, values):
    assert small(name, options=options).cache_bytes == 4 * values
    half = small(name, options=options, compute=ComputeConfig(dtype=Precision.bfloat16))
    assert half.cache_bytes == 2 * values
