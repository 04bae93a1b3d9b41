"""Methods of fine-tuning, and a tiny model for each."""

from __future__ import annotations

from harness.config.compose import compose
from harness.models import build
from tests.training.runs import TINY

METHODS = {
    "full": ("finetune.method=full",),
    "lora": ("finetune.method=lora", "finetune.rank=2", "finetune.alpha=6"),
    "frozen": ("finetune.method=last_layers", "finetune.trainable_layers=1"),
}
SMALL = ("model.width=16", "model.layers=2", "model.heads=1", "model.ffn=24")
SHORT = ("scale.tokens=4096", "schedule.branches=[]", "optimizer.learning_rate=0.003")
"""16 steps, none of them left by a branch."""
EXPERTS = ("model.feedforward.name=moe", "+model.feedforward.options.experts=4")
"""With a bias on the choice, which moves without a gradient."""


def model_of(*overrides):
    config = compose(["data=own", "data.sources.own.path=x", *TINY, *SMALL, *overrides])
    return config, build(config, 257)
