"""Loss by place in the context: the mean over each of n equal parts of the positions."""

import itertools
from dataclasses import dataclass

import jax.numpy as jnp

from harness.extend import register_metric


@dataclass(frozen=True)
class LossByPlaceOptions:
    """Options of `loss_by_place`."""

    parts: int = 4


@register_metric("loss_by_place", LossByPlaceOptions, at="evaluation", unit="nats a token", better="lower")
def loss_by_place(model, params, rows_BR, options):
    """Return the mean loss of each part of a row, by its number."""
    loss_BT = model.token_losses(params, rows_BR)
    edges = [loss_BT.shape[1] * part // options.parts for part in range(options.parts + 1)]
    parts = enumerate(itertools.pairwise(edges))
    return {str(part): jnp.mean(loss_BT[:, start:end], axis=1) for part, (start, end) in parts}
