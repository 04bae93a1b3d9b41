"""Hyper-connections (arXiv:2409.19606): n copies of the residual stream, which the branches mix.

Branch f reads sum_i a_i h_i of the lanes h [n, D] and leaves h_j <- sum_i m_ij h_i + b_j f(norm(a h)).
At the start branch k reads lane k mod n, m is the identity and b is 1, which is the pre-norm block. The
dynamic form adds s tanh(norm(h_i) w) to each coefficient, with w = 0 and s = .01 at the start. The lanes open
as copies of the embedding and close as their sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.core.errors import UserError
from harness.models.layers import gather_weight, project
from harness.models.mechanism import LayerContext
from harness.models.parameters import constant, zeros
from harness.models.sockets.entries import register_block


@dataclass(frozen=True)
class HyperConnectionsOptions:
    """Options of `hyper_connections`."""

    lanes: int = 4
    """Copies of the stream."""
    dynamic: bool = True
    """Let the coefficients depend on the token."""

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise UserError(f"model.block.options.lanes={self.lanes} must be at least 1: the stream.")


class Lanes(nnx.Module):
    """Copies of the stream, [B, T, n, D], and their sum at the end."""

    def __init__(self, context: LayerContext, options: HyperConnectionsOptions):
        self.lanes = options.lanes

    def open(self, x_BTD: Array) -> Array:
        """Return the lanes from the embedding."""
        return jnp.stack([x_BTD] * self.lanes, axis=2)

    def close(self, h_BTnD: Array) -> Array:
        """Return the sum of the lanes."""
        return jnp.sum(h_BTnD, axis=2)


class Connection(nnx.Module):
    """Connection of the lanes with one branch. Parameters are the differences from those of the start."""

    def __init__(self, context: LayerContext, options: HyperConnectionsOptions, branch: int):
        n, D = options.lanes, context.shape.width
        self.first_lane = (2 * context.layer + branch) % n
        self.read, self.write = zeros((n,), (None,)), zeros((n,), (None,))
        self.mix = zeros((n, n), (None, None))
        self.norm = context.norm(D)
        if options.dynamic:
            self.input_norm = context.norm(D)
            self.dynamic = zeros((D, n + 2), ("width", None))
            self.scale = constant(2, None, 0.01)

    def __call__(self, h_BTnD: Array, branch: Callable[[Array], Array]) -> Array:
        """Map the lanes to the lanes after a branch."""
        read_BTn, write_BTn, mix_BTnn = self._coefficients(h_BTnD)
        y_BTD = branch(self.norm(jnp.sum(read_BTn[..., None] * h_BTnD, axis=2)))
        mixed_BTnD = jnp.sum(mix_BTnn[..., None] * h_BTnD[:, :, :, None], axis=2)
        return mixed_BTnD + write_BTn[..., None] * y_BTD[:, :, None]

    def _coefficients(self, h_BTnD: Array) -> tuple[Array, Array, Array]:
        n, dtype = h_BTnD.shape[2], h_BTnD.dtype
        read_n = gather_weight(self.read, dtype) + (jnp.arange(n) == self.first_lane)
        write_n = gather_weight(self.write, dtype) + 1
        mix_nn = gather_weight(self.mix, dtype) + jnp.eye(n, dtype=dtype)
        if not hasattr(self, "dynamic"):
            return tuple(c[None, None].astype(dtype) for c in (read_n, write_n, mix_nn))  # pyright: ignore[reportReturnType]
        input_BTnD = self.input_norm(h_BTnD)
        lanes = [jnp.tanh(project(input_BTnD[:, :, lane], self.dynamic)) for lane in range(n)]
        change_BTnC = jnp.stack(lanes, axis=2)
        read_scale, write_scale = gather_weight(self.scale, dtype)
        return (
            (read_n + read_scale * change_BTnC[..., 0]).astype(dtype),
            write_n + write_scale * change_BTnC[..., 1],
            mix_nn + read_scale * change_BTnC[..., 2:],
        )


@register_block("hyper_connections", HyperConnectionsOptions, stream=Lanes)
class HyperConnections(nnx.Module):
    """Layer of two branches over several lanes."""

    def __init__(self, context: LayerContext, options: HyperConnectionsOptions):
        self.attention_connection = Connection(context, options, 0)
        self.feedforward_connection = Connection(context, options, 1)

    def __call__(
        self, h_BTnD: Array, attend: Callable[[Array], Array], feed: Callable[[Array], Array]
    ) -> Array:
        """Map the lanes [B, T, n, D] to the lanes after both branches."""
        return self.feedforward_connection(self.attention_connection(h_BTnD, attend), feed)
