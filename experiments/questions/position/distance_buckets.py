"""T5's biases: instead of a rotation, a learned scalar a head and bucket of distances; buckets below half are
single distances, those above grow as the logarithm."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from harness.extend import (
    GroupedOptions,
    SoftmaxAttention,
    attention_scores,
    gather_weight,
    register_softmax,
    visible_keys,
    weighted_values,
    zeros,
)


@dataclass(frozen=True, kw_only=True)
class Options(GroupedOptions):
    buckets: int = 32
    longest: int = 128
    """Distance from which on all share the last bucket."""


@register_softmax("distance_buckets", Options, in_steps=True)
class DistanceBuckets(SoftmaxAttention):
    """Softmax attention with a learned bias a head and bucket of distances."""

    def __init__(self, context, options: Options):
        super().__init__(context, options)
        self.options = options
        self.bias = zeros((options.buckets, context.shape.heads), (None, "heads"))

    def rotate(self, x_BHTK, rotary):
        return x_BHTK

    def mix(self, query_BHTK, key_BGTK, value_BGTK, rotary):
        T, exact = query_BHTK.shape[2], self.options.buckets // 2
        distance_TS = jnp.maximum(jnp.arange(T)[:, None] - jnp.arange(T), 0)
        ratio_TS = jnp.log(jnp.maximum(distance_TS, 1) / exact) / math.log(self.options.longest / exact)
        far_TS = jnp.minimum(exact + (ratio_TS * exact).astype(int), self.options.buckets - 1)
        bucket_TSN = jax.nn.one_hot(jnp.where(distance_TS < exact, distance_TS, far_TS), self.options.buckets)
        bias_HTS = jnp.einsum("tsn,nh->hts", bucket_TSN, gather_weight(self.bias, bucket_TSN.dtype))
        score_BHTS = attention_scores(query_BHTK, key_BGTK) + bias_HTS
        return weighted_values(self.weights(score_BHTS, visible_keys(rotary)), value_BGTK)
