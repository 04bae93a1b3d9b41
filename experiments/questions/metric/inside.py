"""Entropy -sum w ln w of the attention weights, RMS of the stream after each layer, and the largest logit."""

import jax
import jax.numpy as jnp

from harness.extend import attention_scores, record_calls, register_metric, softmax_weights, visible_keys


@register_metric("inside", at="evaluation")
def inside(model, params, rows_BR):
    """Return the values of each row, by name and layer."""
    decoder = model.module(params)
    streams = [record_calls(layer) for layer in decoder.layers]
    heads = [record_calls(layer.attention, "heads") for layer in decoder.layers]
    tokens_BT = rows_BR[:, :-1]
    logits_BTV = decoder.logits(decoder.run_layers(tokens_BT).x_BTD)
    values = {"largest_logit": jnp.max(logits_BTV, axis=(1, 2))}
    for index, (stream, head) in enumerate(zip(streams, heads, strict=True)):
        x_BTD = stream[0].output.astype(jnp.float32)
        values[f"stream_rms{index}"] = jnp.sqrt(jnp.mean(jnp.square(x_BTD), axis=(1, 2)))
        query_BHTK, key_BGTK, _ = head[0].output
        values[f"attention_entropy{index}"] = _entropy(query_BHTK, key_BGTK, head[0].arguments[1])
    return values


def _entropy(query_BHTK, key_BGTK, rotary):
    visible = visible_keys(rotary)
    weight_BHTS = softmax_weights(attention_scores(query_BHTK, key_BGTK), visible)
    return jnp.mean(jnp.sum(jax.scipy.special.entr(weight_BHTS), axis=-1), axis=(1, 2))
