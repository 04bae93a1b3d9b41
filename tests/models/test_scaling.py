"""Scalings: CompleteP against the paper's table, and muP as ever."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from harness.config.schema.run import ComputeConfig, ModelConfig, ModuleConfig
from harness.core.errors import UserError
from harness.models.mup import learning_rate_scale
from harness.models.scaling.scaling_registry import Growth, Scale

BASE_LAYERS, BASE_WIDTH = 3, 8


def model_of(small: Any, width: int, layers: int, alpha: float = 1.0) -> Any:
    scaling = ModuleConfig("complete_p", {"base_layers": BASE_LAYERS, "alpha": alpha})
    sizes = {"width": width, "heads": width // 4, "ffn": 3 * width // 2, "layers": layers}
    loop = ComputeConfig(scan_layers=False)
    return small(scaling=scaling, base_width=BASE_WIDTH, tie_embeddings=False, compute=loop, **sizes)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize(("width", "layers"), [(8, 3), (32, 3), (8, 12), (16, 6)])
def test_factors_are_those_of_the_table(small, width, layers, alpha):
    """Table 1 of the paper gives learning rate, decay, epsilon and the multiplier of each tensor in turn. A
    tensor W with multiplier c is trained here as cW: Adam's step of cW is c times that of W, its gradient
    1 / c times, and decay takes rate times decay of either."""
    base, model = model_of(small, BASE_WIDTH, BASE_LAYERS, alpha), model_of(small, width, layers, alpha)
    m_n, m_l = width / BASE_WIDTH, layers / BASE_LAYERS
    hidden_rate, hidden_epsilon = m_l ** (alpha - 1) / m_n, m_l**-alpha / m_n
    table = {
        # path: (rate, decay, epsilon, multiplier, initial deviation) relative to the base, of W
        "embedding": (1.0, 1.0, 1 / m_n, m_n**-0.5, 1.0),
        "head": (1.0, 1.0, 1 / m_n, m_n**-0.5, 1.0),
        "norm.gain": (1.0, 0.0, 1 / m_n, 1.0, 0.0),
        "layers.0.attention_norm.gain": (m_l ** (alpha - 1), 0.0, hidden_epsilon, 1.0, 0.0),
        "layers.0.attention.query": (hidden_rate, m_n, hidden_epsilon, 1.0, m_n**-0.5),
        "layers.2.feedforward.up": (hidden_rate, m_n, hidden_epsilon, 1.0, m_n**-0.5),
        "layers.1.attention.output": (hidden_rate, m_n, hidden_epsilon, m_l**-alpha, m_n**-0.5),
        "layers.1.feedforward.down": (hidden_rate, m_n, hidden_epsilon, m_l**-alpha, m_n**-0.5),
    }
    for path, (rate, decay, epsilon, multiplier, deviation) in table.items():
        scale, spec = model.scales[path], model.param_specs[path]
        assert scale.rate == pytest.approx(multiplier * rate), path
        assert scale.epsilon == pytest.approx(epsilon / multiplier), path
        assert spec.deviation == pytest.approx(multiplier * deviation * base.param_specs[path].deviation), (
            path
        )
        if spec.decays:
            assert scale.decay == pytest.approx(rate * decay), path


def test_the_head_and_the_embedding_have_multipliers_of_the_model(small):
    """In the table the embedding has none and the head 1 / m_n; the decoder has m_n^(1/2) and m_n^(-1/2) on
    tables that start with variance 1 / width (`models.mup`), so that each is m_n^(-1/2) of that in W."""
    wide = model_of(small, 32, 3)
    assert wide.spec.growth == Growth(4.0, 3)
    assert wide.param_specs["embedding"].deviation == pytest.approx(32**-0.5)


def test_at_the_base_size_nothing_changes(small):
    plain, model = small(), model_of(small, BASE_WIDTH, BASE_LAYERS)
    model_scales = {path: scale for path, scale in model.scales.items() if path != "head"}
    assert set(model_scales.values()) == {Scale()}
    # heads and ffn of `model_of` differ from those of `small` in attention and feed-forward
    assert np.array_equal(plain.init(0)["embedding"], model.init(0)["embedding"])


def test_mup_is_the_default(small):
    assert ModelConfig().scaling == ModuleConfig("mup")
    model = small(base_width=2)
    assert model.learning_rate_scales == {
        path: learning_rate_scale(spec, 4.0) for path, spec in model.param_specs.items()
    }
    assert {(s.decay, s.deviation, s.epsilon) for s in model.scales.values()} == {(1.0, 1.0, 1.0)}
    assert math.isclose(model.scales["layers.0.attention.query"].rate, 1 / 4)


def test_bad_options_are_refused(small):
    for options, message in [
        ({"base_layers": 0}, r"model\.scaling\.options\.base_layers=0 must be at least 1"),
        ({"base_layers": 3, "alpha": 2.0}, r"model\.scaling\.options\.alpha=2\.0 must be between 0\.5"),
        ({}, r"model\.scaling\.options\.base_layers is missing"),
    ]:
        with pytest.raises(UserError, match=message):
            small(scaling=ModuleConfig("complete_p", options))
