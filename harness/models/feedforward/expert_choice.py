"""Experts that choose their tokens (arXiv:2202.09368): each takes the T k / E tokens of a sequence with its
highest scores, so that all loads are equal and a token has any number of experts.

A choice among all tokens of a sequence sees later ones: the loss is not that of a causal model, and decoding
token by token computes something else. So it has to be asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from harness.models.feedforward.dispatch import queue_rows
from harness.models.feedforward.moe import FLOAT32, MoE, MoEOptions, register_experts
from harness.models.feedforward.routing import Routing
from harness.models.layers import project


@dataclass(frozen=True)
class ExpertChoiceOptions(MoEOptions):
    """Options of `expert_choice`. Loads are equal, so nothing balances them."""

    balance: str = "none"
    dispatch: str = "capacity"
    capacity_factor: float = 1.0
    """Tokens of an expert relative to `top_k` experts a token."""
    sees_future: bool = False
    """Accept that the choice of a token's experts depends on later tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sees_future:
            problem = "refuses experts that choose among all tokens of a sequence: later tokens move the loss"
            self._refuse("sees_future", f"{problem} of earlier ones. Accept that by true, or choose 'moe'.")
        if self.balance != "none":
            self._refuse("balance", "moves nothing, since loads are equal. Choose none.")
        if self.dispatch != "capacity":
            self._refuse("dispatch", "has no meaning where experts choose. Choose capacity.")


@register_experts("expert_choice", ExpertChoiceOptions)
class ExpertChoice(MoE):
    """Mixture of experts in which each expert chooses tokens."""

    def scores(self, x_BTD: Array) -> Array:
        """Return the float32 softmax [B, T, E] over the experts."""
        return jax.nn.softmax(project(x_BTD.astype(FLOAT32), self.router), axis=-1)

    def choose(self, scores_BTE: Array) -> Routing:
        """Return all experts for each token, those that did not choose it as the index E with weight 0."""
        T, E = scores_BTE.shape[1:]
        options = self.options
        rows = queue_rows(T, E, options.top_k, options.capacity_factor)
        ranked_BET = jax.lax.stop_gradient(scores_BTE).swapaxes(1, 2)
        lowest_BE1 = jax.lax.top_k(ranked_BET, rows)[0][..., -1:]
        is_chosen_BTE = (ranked_BET >= lowest_BE1).swapaxes(1, 2)
        chosen_BTE = jnp.where(is_chosen_BTE, jnp.arange(E), E)
        share_BTE = jnp.where(is_chosen_BTE, scores_BTE, 0.0)
        return Routing(chosen_BTE, share_BTE, jnp.full((E,), 1 / E), jnp.ones(()))

    def apply(self, x_BTD: Array, routing: Routing) -> tuple[Array, Array]:
        """Return the weighted sum of the outputs of the experts that chose a token; nothing is dropped."""
        return super().apply(x_BTD, routing)[0], jnp.zeros(())
