"""Paired heads: queries, keys and values of two heads interleave to 2T positions, token t of the first at 2t
and of the second at 2t + 1; causal softmax over them. Both turn by the position of their token."""

from dataclasses import replace

import jax.numpy as jnp
from flax import nnx

from harness.extend import (
    UserError,
    attention_scores,
    project,
    register_attention,
    softmax_weights,
    visible_keys,
    weight,
    weighted_values,
)


@register_attention("paired_heads")
class PairedHeads(nnx.Module):
    def __init__(self, context, options):
        D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
        if H % 2:
            raise UserError(f"model.heads={H} is odd, but heads work in pairs. Choose an even one.")
        into, out = ("width", "heads", None, None), ("heads", None, None, "width")
        self.query, self.key, self.value = (weight((D, H // 2, 2, K), into, fan_in=D) for _ in range(3))
        self.output = weight((H // 2, 2, K, D), out, fan_in=H * K, depth=context.shape.layers)
        self.query_norm, self.key_norm = (context.norm(K, None) for _ in range(2))

    def __call__(self, x_BTD, rotary):
        T = x_BTD.shape[1]
        document_BT = rotary.document_BT
        pairs = replace(
            rotary,
            cos_TJ=jnp.repeat(rotary.cos_TJ, 2, axis=0),
            sin_TJ=jnp.repeat(rotary.sin_TJ, 2, axis=0),
            document_BT=None if document_BT is None else jnp.repeat(document_BT, 2, axis=1),
        )

        def interleave(matrix):
            heads_BPT2K = project(x_BTD, matrix).swapaxes(1, 2)
            return heads_BPT2K.reshape(*heads_BPT2K.shape[:2], 2 * T, -1)

        query_BPTK = pairs(self.query_norm(interleave(self.query)))
        key_BPTK = pairs(self.key_norm(interleave(self.key)))
        weight_BPTS = softmax_weights(attention_scores(query_BPTK, key_BPTK), visible_keys(pairs))
        mixed_BPTK = weighted_values(weight_BPTS, interleave(self.value))
        mixed_BTP2K = mixed_BPTK.reshape(*mixed_BPTK.shape[:2], T, 2, -1).swapaxes(1, 2)
        return project(mixed_BTP2K, self.output)
