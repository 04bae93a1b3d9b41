"""mHC lite: M is a softmax over the n! permutation matrices, doubly stochastic without Sinkhorn."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.questions.block.manifold_hyper_connections import LANES, Lanes, ManifoldHyperConnections
from harness.extend import register_block

PERMUTATIONS = np.stack([np.eye(LANES)[list(order)] for order in itertools.permutations(range(LANES))])


def by_permutations(mix_BTC):
    share_BTC = jax.nn.softmax(mix_BTC, axis=-1)
    return jnp.sum(share_BTC[..., None, None] * PERMUTATIONS.astype(np.float32), axis=2)


@register_block("permuted_hyper_connections", stream=Lanes, scans=True)
class PermutedHyperConnections(ManifoldHyperConnections):
    mixes, mixing = len(PERMUTATIONS), staticmethod(by_permutations)
