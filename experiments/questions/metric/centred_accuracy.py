"""Accuracy of the next token above chance 1 / V, as in CORE: (accuracy - 1 / V) / (1 - 1 / V)."""

import jax.numpy as jnp

from harness.extend import register_metric


@register_metric("centred_accuracy", at="evaluation", unit="share", better="higher")
def centred_accuracy(model, params, rows_BR):
    """Return the accuracy of each row, 0 at chance and 1 at best."""
    logits_BTV = model.logits(params, rows_BR[:, :-1])
    right_BT = jnp.argmax(logits_BTV, axis=-1) == rows_BR[:, 1:]
    chance = 1 / model.shape.vocabulary
    return (jnp.mean(right_BT, axis=1, dtype=jnp.float32) - chance) / (1 - chance)
