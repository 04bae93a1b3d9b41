"""Softmax attention by splash, the fused kernel that JAX has for TPUs.

It keeps the scores in blocks on the chip, forward and backward, and skips blocks that no query sees.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from harness.models.attention.kernels.map_heads import map_heads

LANES, LARGEST_BLOCK = 128, 512
"""Tokens of the smallest block, which divides every sequence, and of the largest. Larger ones are faster
until the chip's memory is full."""

BLOCKS = ("block_q", "block_kv", "block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq")
"""Blocks of queries and keys, forward and in the gradients of keys and of queries."""


def splash_attention(
    query_BHTK: Array,
    key_BGTK: Array,
    value_BGTK: Array,
    window: int | None,
    softcap: float | None = None,
    sink_H: Array | None = None,
    document_BT: Array | None = None,
    interpret: bool = False,
) -> Array:
    """Compute `softmax.attend` in one kernel. T is a multiple of LANES. `interpret` runs it on a CPU."""
    # Imported where a TPU is meant: it takes longer than the rest of this package.
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    T, scale = query_BHTK.shape[2], 1 / math.sqrt(query_BHTK.shape[3])
    scaled_BHTK = (query_BHTK.astype(jnp.float32) * scale).astype(query_BHTK.dtype)

    def each_device(query_BHTK, key_BGTK, value_BGTK, sink_H, document_BT) -> Any:
        mask = splash.CausalMask((T, T)) if window is None else splash.LocalMask((T, T), (window - 1, 0), 0)
        kernel = splash.make_splash_mha(
            splash.MultiHeadMask([mask] * query_BHTK.shape[1]),
            block_sizes=splash.BlockSizes(**dict.fromkeys(BLOCKS, block_size(T))),
            attn_logits_soft_cap=softcap,
            head_shards=1,
            q_seq_shards=1,
            interpret=interpret,
        )

        def one_sequence(query_HTK, key_GTK, value_GTK, document_T):
            documents = None if document_T is None else splash.SegmentIds(document_T, document_T)
            return kernel(query_HTK, key_GTK, value_GTK, documents, sink_H)

        return jax.vmap(one_sequence)(query_BHTK, key_BGTK, value_BGTK, document_BT)

    return map_heads(each_device, scaled_BHTK, key_BGTK, value_BGTK, sink_H, document_BT)


def block_size(length: int) -> int:
    """Return the tokens of a block: a power of two that divides the sequence."""
    return math.gcd(length, LARGEST_BLOCK)


def mean_computed_keys(length: int, window: int | None, block: int) -> float:
    """Return the mean number of keys per query that a kernel computes which visits blocks of keys with a
    visible one."""
    keys = 0
    for start in range(0, length, block):
        stop = min(start + block, length)
        first = 0 if window is None else max(0, start - window + 1) // block * block
        keys += (stop - start) * (stop - first)
    return keys / length
