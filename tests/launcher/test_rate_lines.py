"""A learning rate far above what a published rule gives is said before a sweep."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.config.schema.finetune import FinetuneMethod
from harness.launcher.runs import Run, run_dir, sweep_dir
from harness.launcher.stages.rate_lines import rate_lines
from tests.launcher.support import configs, facts


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """A pair of 124 M parameters on 2.48 B tokens, with the demo's rate."""
    made = configs(tmp_path, seeds=(0,))
    for config in made:
        config.optimizer.learning_rate = 0.012
    shape = facts(made[0]).shape | {"width": 768}
    sizes = {"non_embedding": 124_000_000, "tokens_per_step": 131_072, "steps": 18_920, "shape": shape}
    sweep = sweep_dir(made)
    return [Run(c, dataclasses.replace(facts(c), **sizes), run_dir(sweep, c)) for c in made]


def test_the_demos_rate_at_a_large_width_is_said_once_a_scale(runs):
    assert rate_lines(runs) == [
        "  xs: optimizer.learning_rate=0.012 at width 768 is 5 times the 0.0023 of the Step Law for 124M "
        "parameters and 2.48B tokens. Lower it, or set model.base_width to the width that it was tuned at."
    ]


def test_a_rate_near_the_law_or_carried_or_of_a_fine_tuning_is_not(runs):
    for config in (run.config for run in runs):
        config.optimizer.learning_rate = 0.005
    assert rate_lines(runs) == []
    for config in (run.config for run in runs):
        config.optimizer.learning_rate, config.model.base_width = 0.012, 32
    assert rate_lines(runs) == []
    for config in (run.config for run in runs):
        config.model.base_width, config.finetune.method = None, FinetuneMethod.full
    assert rate_lines(runs) == []
