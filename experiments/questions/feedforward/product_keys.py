"""Product keys (PEER): y = sum_h sum_e w_he v_e relu(u_e.x), 8 heads with the 16 best of n^2 experts each; a
query's halves against two sets of n keys, 16 best of each, of the 256 sums the 16 best, w their softmax."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import LayerContext, lookup, project, register_feedforward, rms_normalise, weight


@dataclass(frozen=True)
class Options:
    keys: int = 1024
    """Keys of each half: there are keys^2 experts."""
    heads: int = 8
    top: int = 16
    half: int = 64
    """Width of half a query."""


@register_feedforward("product_keys", Options)
class ProductKeys(nnx.Module):
    def __init__(self, context: LayerContext, options: Options):
        D, N, H, K = context.shape.width, options.keys, options.heads, options.half
        self.top = min(options.top, N)
        self.query = weight((D, H, 2, K), ("width", None, None, None), fan_in=D)
        self.half_keys = nnx.List(weight((K, N), (None, None), fan_in=K) for _ in range(2))
        self.down = weight((N * N, D), ("vocabulary", "width"), fan_in=D)
        self.up = weight((N * N, D), ("vocabulary", "width"), fan_in=H, depth=context.shape.layers)

    def __call__(self, x_BTD):
        query_BTH2K = rms_normalise(project(x_BTD, self.query), 1e-6)
        halves = [self._best(query_BTH2K[:, :, :, half], half) for half in range(2)]
        (first_BTHI, at_BTHI), (second_BTHJ, at_BTHJ) = halves
        score_BTHIJ = first_BTHI[..., :, None] + second_BTHJ[..., None, :]
        index_BTHIJ = at_BTHI[..., :, None] * self.half_keys[0].shape[1] + at_BTHJ[..., None, :]
        score_BTHP, index_BTHP = (x.reshape(*x.shape[:3], -1) for x in (score_BTHIJ, index_BTHIJ))
        best_BTHE, place_BTHE = jax.lax.top_k(score_BTHP, self.top)
        expert_BTHE = jnp.take_along_axis(index_BTHP, place_BTHE, axis=-1)
        weight_BTN = jax.nn.softmax(best_BTHE, axis=-1).reshape(*x_BTD.shape[:2], -1)
        hidden_BTN = jax.nn.relu(jnp.sum(self._rows(self.down, expert_BTHE, x_BTD) * x_BTD[:, :, None], -1))
        rows_BTND = self._rows(self.up, expert_BTHE, x_BTD)
        return jnp.sum((weight_BTN * hidden_BTN)[..., None].astype(x_BTD.dtype) * rows_BTND, axis=2)

    def _best(self, query_BTHK, half):
        B, T, H, K = query_BTHK.shape
        score_BTHN = project(query_BTHK.reshape(B, T * H, K), self.half_keys[half])
        return jax.lax.top_k(score_BTHN.reshape(B, T, H, -1), self.top)

    def _rows(self, table, expert_BTHE, x_BTD):
        B, T, D = x_BTD.shape
        return lookup(table, expert_BTHE.reshape(B, -1), x_BTD.dtype).reshape(B, T, -1, D)
