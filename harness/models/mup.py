"""Transfer of learning rates across widths: the maximal-update parametrisation (muP, arXiv:2203.03466).

A model is r = width / base_width times as wide as its base. The rules are those of table 3 for Adam, with the
multipliers moved: a tensor multiplied by c is initialised and learned with 1 / c. So every parameter starts
as it does without muP, and one table can be both embedding and head:

                             init variance    multiplier    learning rate
    vocabulary, embedding    1 / width        r^(1/2)       r^(-1/2)
    vocabulary, head         1 / width        r^(-1/2)      r^(-1/2)
    hidden matrices          1 / fan_in       1             r^(-1)
    gains                    1                1             1

Weight decay removes the same fraction per step at every width, as in the authors' package: fractions that
shrank as 1 / r would leave wide models undecayed. The rules do not cover depth. They need a fixed head width,
because scores are divided by its square root, and heads and feed-forward width that grow with the width.
Adam's epsilon is not scaled: it must stay far below the gradients of the widest model, which shrink as 1 / r.
"""

from __future__ import annotations

from harness.config.schema.run import ModelConfig
from harness.core.errors import UserError
from harness.models.parameters import ParamSpec, expert_matrix

WIDTH_SCALED_AXES = ("width", "heads", "kv_heads", "ffn")
"""Logical axes whose size grows with the model width."""


def relative_width(config: ModelConfig, width: int) -> float:
    """Return r = width / `model.base_width`; 1 if that is null. Raises UserError if it is below 1."""
    if config.base_width is None:
        return 1.0
    if config.base_width < 1:
        raise UserError(
            f"model.base_width={config.base_width} must be at least 1. Give the width that the learning "
            "rates were tuned at, or null to use them unscaled."
        )
    return width / config.base_width


def learning_rate_scale(spec: ParamSpec, relative: float) -> float:
    """Return the factor of the learning rate for one layer's parameter.

    A matrix is hidden if the first axis that it contracts (`layers.project` contracts the leading ones) grows
    with the width. A matrix that contracts an axis of fixed size is an input matrix and keeps the base
    learning rate.
    """
    if "vocabulary" in spec.axes:
        return relative**-0.5
    return 1 / relative if spec.is_weight and expert_matrix(spec).axes[0] in WIDTH_SCALED_AXES else 1.0
