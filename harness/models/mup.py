"""Learning rates carried from one width to another: the maximal-update rule (arXiv:2203.03466).

A model is r = width / base_width times as wide as its base. The rule is that of table 3 for Adam, with the
multipliers moved (what is multiplied by c, is drawn and learned by 1 / c) so that every parameter starts as
it does without the rule, and one table can be both embedding and head:

                             start         times       learning rate
    vocabulary, to read in   1 / width     r^(1/2)     r^(-1/2)
    vocabulary, to logits    1 / width     r^(-1/2)    r^(-1/2)
    hidden matrices          1 / fan_in    1           r^(-1)
    gains                    1             1           1

`start` is a variance. What decays by weight decay decays by the same share a step at every width, as in the
authors' package: shares that shrank as 1 / r would leave wide models undecayed. The rule says nothing of
depth, and wants the head width fixed, because scores are divided by its square root. It takes heads and
the feed-forward width to grow as the width does. Adam's epsilon is not scaled: it is to stay far below the
gradients of the widest model, which shrink as 1 / r.
"""

from __future__ import annotations

from dataclasses import replace

from harness.config.schema.run import ModelConfig
from harness.core.errors import UserError
from harness.models.parameters import ParamSpec

WIDTH_SCALED_AXES = ("width", "heads", "kv_heads", "ffn")


def relative_width(config: ModelConfig, width: int) -> float:
    """r: 1 where no base is named. Raises UserError for a base that is no width."""
    if config.base_width is None:
        return 1.0
    if config.base_width < 1:
        raise UserError(
            f"model.base_width={config.base_width} is no width: give the one whose learning rates these are, "
            "or null for rates as they are"
        )
    return width / config.base_width


def learning_rate_scale(spec: ParamSpec, relative: float) -> float:
    """What the learning rate of one layer's parameter is multiplied by.

    A matrix is hidden if the first axis that it contracts (`layers.project` contracts the leading ones)
    grows with the width; from an axis of fixed size it is read in, with the learning rate of the base.
    """
    if "vocabulary" in spec.axes:
        return relative**-0.5
    return 1 / relative if spec.deviation and expert_matrix(spec).axes[0] in WIDTH_SCALED_AXES else 1.0


def expert_matrix(spec: ParamSpec) -> ParamSpec:
    """What is one matrix of a parameter that holds those of all experts; any other as it is."""
    if spec.axes[0] != "experts":
        return spec
    return replace(spec, shape=spec.shape[1:], axes=spec.axes[1:])
