"""Dropout: each value of a branch's output is 0 with probability q in training, the others f / (1 - q)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from harness.extend import PreNorm, register_block


@dataclass(frozen=True)
class Options:
    rate: float = 0.1


@register_block("branch_dropout", Options)
class BranchDropout(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.keep = 1 - options.rate

    def __call__(self, x_BTD, attend, feed, key):
        if key is None:
            return super().__call__(x_BTD, attend, feed)
        keys = jax.random.split(key)
        attend, feed = self.dropped(attend, keys[0]), self.dropped(feed, keys[1])
        return super().__call__(x_BTD, attend, feed)

    def dropped(self, branch, key):
        def apply(x_BTD):
            y_BTD = branch(x_BTD)
            return jnp.where(jax.random.bernoulli(key, self.keep, y_BTD.shape), y_BTD / self.keep, 0)

        return apply
