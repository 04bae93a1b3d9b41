"""Loss with long context, as a window that moves by S scores it: the mean over the last S tokens of a row."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from harness.extend import register_metric


@dataclass(frozen=True)
class StridedLossOptions:
    """Options of `strided_loss`."""

    stride: int = 32


@register_metric("strided_loss", StridedLossOptions, at="evaluation", unit="nats a token", better="lower")
def strided_loss(model, params, rows_BR, options):
    """Return the mean loss of the last `stride` tokens of each row, all of which see a long context."""
    return jnp.mean(model.token_losses(params, rows_BR)[:, -options.stride :], axis=1)


@dataclass(frozen=True)
class AdaptedLossOptions:
    """Options of `adapted_loss`."""

    rate: float = 0.1


@register_metric("adapted_loss", AdaptedLossOptions, at="evaluation", unit="nats a token", better="lower")
def adapted_loss(model, params, rows_BR, options):
    """Return the loss of each row's second half after one step of SGD on the first halves of its batch:
    W - rate g."""
    half = rows_BR.shape[1] // 2

    def scored(params):
        return jnp.mean(model.token_losses(params, rows_BR)[:, :half])

    adapted = jax.tree.map(lambda w, g: w - options.rate * g, params, jax.grad(scored)(params))
    return jnp.mean(model.token_losses(adapted, rows_BR)[:, half:], axis=1)
