"""Every parameter is a function of seed and path: what two variants share starts bitwise equal."""

import numpy as np
import pytest

from harness.config.schema.run import ComputeConfig
from harness.models.initialisation.draw import Draw
from harness.models.parameters import ParamSpec, Stacking, init_param, sort_by_path
from tests.models.mechanisms import LOCAL


def test_what_two_variants_share_starts_bitwise_equal(small):
    mha, gqa = small().init(4), small("gqa", options={"kv_heads": 2}, ffn=14, tie_embeddings=False).init(4)
    shared = [path for path in mha if path in gqa and mha[path].shape == gqa[path].shape]
    assert "layers.2.attention.query" in shared
    assert "layers.0.attention.key" not in shared
    assert all(np.array_equal(mha[path], gqa[path]) for path in shared)


def test_scanned_start_equals_unrolled_start(small):
    options = {"cycle": [LOCAL, {"name": "mha"}]}
    loop = small("pattern", options=options, layers=11)
    scan = small("pattern", options=options, layers=11, compute=ComputeConfig(scan_layers=True))
    assert scan.param_specs == loop.param_specs
    stored = scan.init(0)
    assert {path: array.shape for path, array in stored.items()} == {
        p: s.shape for p, s in scan.stored_specs.items()
    }
    assert stored["repeats.1.attention.query"].shape == (5, 8, 4, 4)
    canonical, direct = scan.unstack(stored), loop.init(0)
    assert list(canonical) == list(direct)
    assert all(np.array_equal(canonical[path], direct[path]) for path in direct)
    restacked = scan.stack(canonical)
    assert all(np.array_equal(restacked[path], stored[path]) for path in stored)


def test_start_differs_by_seed_and_path_and_has_the_declared_spread():
    spec = ParamSpec((200, 200), (None, None), Draw("normal", 0.5))
    one = init_param(0, "layers.0.a", spec)
    assert one.dtype == np.float32
    assert np.array_equal(one, init_param(0, "layers.0.a", spec))
    assert not np.array_equal(one, init_param(1, "layers.0.a", spec))
    assert not np.array_equal(one, init_param(0, "layers.1.a", spec))
    assert one.std() == pytest.approx(0.5, rel=0.02)
    assert one.mean() == pytest.approx(0.0, abs=0.02)


def test_spread_is_one_over_fan_in_and_depth(small):
    specs = small().param_specs
    assert specs["layers.0.attention.query"].deviation == pytest.approx(8**-0.5)
    assert specs["layers.0.attention.output"].deviation == pytest.approx((16 * 6) ** -0.5)
    assert specs["layers.0.feedforward.down"].deviation == pytest.approx((12 * 6) ** -0.5)
    assert (small().init(0)["norm.gain"] == 1).all()


def test_layer_ten_follows_layer_nine():
    paths = [f"layers.{i}.a" for i in (10, 9, 2)] + ["embedding"]
    assert list(sort_by_path(dict.fromkeys(paths, 0))) == [
        "embedding",
        "layers.2.a",
        "layers.9.a",
        "layers.10.a",
    ]


def test_left_over_layers_keep_their_canonical_number():
    assert Stacking(2, 3).canonical_paths("layers.0.norm.gain") == ["layers.6.norm.gain"]
    assert Stacking(2, 3).canonical_paths("repeats.1.a") == ["layers.1.a", "layers.3.a", "layers.5.a"]
    assert Stacking().canonical_paths("layers.4.a") == ["layers.4.a"]
