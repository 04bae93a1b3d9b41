"""Attention residuals (arXiv:2603.15031): each branch reads a softmax over the outputs before it.

Branch f reads sum_j w_j s_j with w = softmax_j(q . s_j / rms(s_j)) of each token, over the embedding s_0 and
the outputs of all earlier branches; q starts at 0, a plain mean. The head reads so too. In the block form the
sources are the embedding, the sums of finished blocks of branches, and the sum of the block at hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.core.errors import UserError
from harness.models.layers import gather_weight, rms_normalise
from harness.models.mechanism import LayerContext
from harness.models.parameters import zeros
from harness.models.sockets.entries import register_block


@dataclass(frozen=True)
class AttentionResidualsOptions:
    """Options of `attention_residuals`."""

    blocks: int | None = None
    """Number of blocks of branches whose outputs are summed; null: each branch is a source of its own."""

    def __post_init__(self) -> None:
        if self.blocks is not None and self.blocks < 1:
            raise UserError(
                f"model.block.options.blocks={self.blocks} must be at least 1, or null for a source a branch."
            )


class Sources(NamedTuple):
    """Arrays that a branch may read."""

    finished: tuple[Array, ...]
    """Embedding and sums of finished blocks, [B, T, D] each."""
    running: Array | None = None
    """Sum of the block at hand; None if it has no output yet."""


class SourceMixer(nnx.Module):
    """Softmax over sources by one learned query."""

    def __init__(self, context: LayerContext):
        self.query, self.epsilon = zeros((context.shape.width,), ("width",)), context.norm_epsilon

    def __call__(self, sources: Sources) -> Array:
        """Return the weighted mean of the sources, [B, T, D]."""
        own = () if sources.running is None else (sources.running,)
        source_JBTD = jnp.stack([*sources.finished, *own])
        key_JBTD = rms_normalise(source_JBTD, self.epsilon)
        score_JBT = jnp.sum(key_JBTD * gather_weight(self.query, key_JBTD.dtype), axis=-1)
        weight_JBT = jax.nn.softmax(score_JBT, axis=0).astype(source_JBTD.dtype)
        return jnp.sum(weight_JBT[..., None] * source_JBTD, axis=0)


class SourceStream(nnx.Module):
    """Sources from the embedding alone, and what the head reads of them."""

    def __init__(self, context: LayerContext, options: AttentionResidualsOptions):
        self.reader = SourceMixer(context)

    def open(self, x_BTD: Array) -> Sources:
        """Return the embedding as the only source."""
        return Sources((x_BTD,))

    def close(self, sources: Sources) -> Array:
        """Return what the final norm reads."""
        return self.reader(sources)


@register_block("attention_residuals", AttentionResidualsOptions, stream=SourceStream)
class AttentionResiduals(nnx.Module):
    """Layer whose branches read any output before them."""

    def __init__(self, context: LayerContext, options: AttentionResidualsOptions):
        D, branches = context.shape.width, 2 * context.shape.layers
        self.size = 1 if options.blocks is None else math.ceil(branches / options.blocks)
        self.first_branch = 2 * context.layer
        self.attention_norm, self.feedforward_norm = context.norm(D), context.norm(D)
        # The first branch has one source to read.
        self.attention_reader = SourceMixer(context) if context.layer else None
        self.feedforward_reader = SourceMixer(context)

    def __call__(
        self, sources: Sources, attend: Callable[[Array], Array], feed: Callable[[Array], Array]
    ) -> Sources:
        """Map the sources to those with the outputs of both branches."""
        reader = self.attention_reader
        input_BTD = reader(sources) if reader else sources.finished[0]
        output_BTD = attend(self.attention_norm(input_BTD))
        sources = self._add(sources, output_BTD, self.first_branch)
        output_BTD = feed(self.feedforward_norm(self.feedforward_reader(sources)))
        return self._add(sources, output_BTD, self.first_branch + 1)

    def _add(self, sources: Sources, output_BTD: Array, branch: int) -> Sources:
        finished, running = sources
        running = output_BTD if running is None else running + output_BTD
        is_complete = (branch + 1) % self.size == 0
        return Sources((*finished, running)) if is_complete else Sources(finished, running)
