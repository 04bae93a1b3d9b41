"""Layers are scanned from a depth on, unless the config says how."""

from __future__ import annotations

import pytest

from harness.config.schema.finetune import FinetuneMethod
from harness.config.schema.run import Config, ModuleConfig
from harness.models.execution.layer_stack import SCANNED_LAYERS, decide_scan
from harness.models.mechanism import ModelDims
from harness.models.model_spec import ModelSpec

CYCLE = [{"name": "window", "options": {"window": 8}}] * 7 + [{"name": "mha"}]


def is_scanned(layers: int, config: Config) -> bool | None:
    return decide_scan(config, ModelSpec(config.model, ModelDims(32, layers, 1, 32, 64, 256), 32)).scan_layers


def test_depth_decides_where_the_config_leaves_it_open():
    assert not is_scanned(SCANNED_LAYERS - 1, Config())
    assert is_scanned(SCANNED_LAYERS, Config())


@pytest.mark.parametrize("asked", [True, False])
def test_the_config_has_the_last_word(asked):
    config = Config()
    config.compute.scan_layers = asked
    assert is_scanned(2, config) is is_scanned(48, config) is asked


def test_last_layers_have_parameters_of_their_own():
    config = Config()
    config.finetune.method = FinetuneMethod.last_layers
    assert not is_scanned(48, config)


def test_a_pattern_that_does_not_repeat_is_not_scanned():
    config = Config()
    config.model.attention = ModuleConfig("pattern", {"cycle": CYCLE})
    assert not is_scanned(12, config)
    assert is_scanned(16, config)
