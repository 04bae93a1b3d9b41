"""The objective: what is minimised in training, from as many passes of the decoder as it likes.

    @register_objective("mine", Options)
    class Mine(nnx.Module):
        def __init__(self, context: LayerContext, options: Options, new_layer): ...
        def __call__(self, forward: Forward, tokens_BT1): ...   # -> ObjectiveLoss

A run is judged by the next-token cross-entropy of held-out text all the same, without the parameters of its
objective (`objective.*`). An objective of a model that has no such loss defines `judge(forward, tokens_BT1)`,
which returns an upper bound of each token's, [B, T]. Only bounds are compared with bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.config.socket_registry import NoOptions
from harness.models.mechanism import LayerContext, RouterStats
from harness.models.sockets.entries import OBJECTIVE_ARGUMENTS, register_objective
from harness.models.sockets.side_inputs import SideInputs, asked_names
from harness.models.step_clock import StepClock
from harness.models.text.layer import Carry, apply_layer

if TYPE_CHECKING:
    from harness.models.text.decoder import Decoder


class ObjectiveLoss(NamedTuple):
    """Result of an objective."""

    minimised: Array
    """Float32 scalar whose gradient is taken."""
    loss_BT: Array
    """Next-token cross-entropy of each token in nats, as far as the objective knows it: the
    training curve."""


class Pass(NamedTuple):
    """Result of one pass of the decoder."""

    logits_BTV: Array
    """Float32 logits of the next token."""
    hidden_BTD: Array
    """Normalised output of the last layer: what the head multiplies."""
    given_arrays: Mapping[str, Array]
    """Arrays that mechanisms gave, by name."""


@dataclass
class Forward:
    """The decoder as an objective calls it. Statistics and auxiliary losses of its passes are kept."""

    decoder: Decoder
    clock: StepClock | None

    def __post_init__(self) -> None:
        """Begin without statistics."""
        self._signals: list[dict[str, RouterStats]] = []
        self.auxiliary: list[Array] = []
        """Terms that mechanisms add to the loss, beside those of experts."""

    @property
    def signals(self) -> dict[str, RouterStats]:
        """Router statistics of the decoder's layers by stored path: means over the passes."""
        count = len(self._signals)
        return (
            jax.tree.map(lambda *passes: sum(passes[1:], passes[0]) / count, *self._signals) if count else {}
        )

    def __call__(self, tokens_BT: Array, **given_arrays: Array) -> Pass:
        """Apply the decoder to token ids. `given_arrays` are for the mechanisms that ask for them by name."""
        output = self.decoder.run_layers(tokens_BT, self.clock, given_arrays)
        self._signals.append(output.signals)
        self.auxiliary += [] if output.auxiliary is None else [output.auxiliary]
        return Pass(self.decoder.logits(output.x_BTD), output.x_BTD, output.given_arrays)

    def embed(self, tokens_BT: Array) -> Array:
        """Return the rows of the embedding table, [B, T, D]."""
        return self.decoder.embed_rows(tokens_BT)

    def unembed(self, x_BTD: Array) -> Array:
        """Return the logits [B, T, V] of what the head multiplies."""
        return self.decoder.logits(x_BTD)

    def apply_layer(self, layer: nnx.Module, x_BTD: Array, tokens_BT: Array) -> Array:
        """Apply a layer that the objective made with `new_layer`. `tokens_BT` stand at the places of x: they
        tell its documents."""
        rotary = self.decoder.rotary(x_BTD.shape[1]).with_documents(self.decoder.documents(tokens_BT))
        side_inputs = SideInputs(rotary, tokens_BT, x_BTD, self.clock)
        carry, statistics = apply_layer(layer, Carry(x_BTD, {}), side_inputs)
        router = statistics and statistics.router
        terms = [router and router.auxiliary, statistics and statistics.auxiliary]
        self.auxiliary += [term for term in terms if term is not None]
        return carry.stream


@register_objective("next_token")
class NextToken(nnx.Module):
    """Cross-entropy of the next token: the default, which large heads compute in pieces."""

    def __init__(self, context: LayerContext, options: NoOptions, new_layer: Any):
        pass

    def __call__(self, forward: Forward, tokens_BT1: Array) -> ObjectiveLoss:
        """Return the mean over tokens."""
        loss_BT = cross_entropy(forward(tokens_BT1[:, :-1]).logits_BTV, tokens_BT1[:, 1:])
        return ObjectiveLoss(jnp.mean(loss_BT), loss_BT)


def run_objective(
    decoder: Decoder, tokens_BT1: Array, clock: StepClock | None
) -> tuple[ObjectiveLoss, Forward]:
    """Return the result of a decoder's own objective, and its passes with what they leave."""
    objective, forward = cast(Any, decoder.objective), Forward(decoder, clock)
    requests = asked_names(type(objective).__call__, OBJECTIVE_ARGUMENTS)
    side_inputs = SideInputs(decoder.rotary(1), clock=clock)
    return objective(forward, tokens_BT1, **side_inputs.answers(requests, 0, 5)), forward


def cross_entropy(logits_BTV: Array, target_BT: Array) -> Array:
    """Return the cross-entropy of each target in nats, [B, T]."""
    # Selected by comparison: an index would gather over a vocabulary that is sharded.
    is_target_BTV = target_BT[..., None] == jnp.arange(logits_BTV.shape[-1])
    target_logit_BT = jnp.sum(jnp.where(is_target_BTV, logits_BTV, 0.0), axis=-1)
    return jax.nn.logsumexp(logits_BTV, axis=-1) - target_logit_BT
