"""Cross-entropy of a large head in pieces, so that no device ever holds the logits of all its tokens.

A piece is some of a device's tokens over its shard of the vocabulary. The gradient of a piece is computed
while its logits are there (arXiv:2410.10989), so no product is computed twice, and the gradient
of the table is summed in float32: over the pieces, then once over the devices. Exact: nothing is sampled or
dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from harness.config.schema.run import LOSS_PIECE_VALUES, loss_piece_tokens
from harness.models.products.matrix_unit import multiply, multiply_transposed, transpose
from harness.parallel.sharding.axis_rules import partition_spec, splitting_axes
from harness.parallel.sharding.sequence_parallel import per_device


@dataclass(frozen=True)
class LossTerms:
    """Terms of the loss beside the cross-entropy."""

    z_loss: float | Array = 0.0
    """Weight of the mean squared log-partition; an array if it changes over the run."""
    softcap: float | None = None
    """Bound of the logits: l becomes softcap tanh(l / softcap); None: none."""
    vocabulary: int | None = None
    """Number of rows of the table that are tokens; the later ones have no probability and no gradient. None:
    all are."""
    has_empty_places: bool = False
    """True if targets below 0 are none: they have no loss and no gradient."""


class MeanLoss(NamedTuple):
    """Loss of a batch. Only the mean has a gradient."""

    mean: Float[Array, ""]
    """Mean over targets of the cross-entropy and the weighted squared log-partition."""
    loss_BT: Float[Array, "B T"]
    """Cross-entropy of each token; 0 at an empty place."""
    partition_BT: Float[Array, "B T"]
    """Log-partition of each token; 0 at an empty place."""


def needs_pieces(tokens: int, vocabulary: int) -> bool:
    """Return whether a batch of this many tokens takes its loss in pieces on the mesh in context. Smaller
    heads keep their logits whole: that is one product, and its bits are those of `Decoder`'s logits."""
    sizes, axes = jax.sharding.get_abstract_mesh().shape, splitting_axes("rows", "time", "vocabulary")
    shards = math.prod(sizes[axis] for axis in axes)
    return tokens * vocabulary > shards * LOSS_PIECE_VALUES


def loss_of_logits(
    logits_BTV: Array, target_BT: Array, z_loss: float | Array, has_empty_places: bool = False
) -> MeanLoss:
    """Return the loss of whole logits. Here each token's loss has a gradient too."""
    # Selected by comparison: an index would gather over a vocabulary that is sharded.
    is_target_BTV = target_BT[..., None] == jnp.arange(logits_BTV.shape[-1])
    target_logit_BT = jnp.sum(jnp.where(is_target_BTV, logits_BTV, 0.0), axis=-1)
    partition_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    loss_BT, terms = partition_BT - target_logit_BT, LossTerms(z_loss, has_empty_places=has_empty_places)
    return _mean_loss(loss_BT, partition_BT, target_BT, terms)


def mean_over_targets(values_BT: Array, target_BT: Array, has_empty_places: bool) -> Array:
    """Return the mean over all places, or, of values that are 0 at the empty ones, over the others."""
    return jnp.sum(values_BT) / _num_targets(target_BT) if has_empty_places else jnp.mean(values_BT)


def _num_targets(target_BT: Array) -> Array:
    """Return the number of targets that are tokens; 1 if none is."""
    return jnp.maximum(jnp.sum(target_BT >= 0), 1)


def loss_in_pieces(
    x_BTD: Float[Array, "B T D"],
    table_VD: Float[Array, "V D"],
    target_BT: Int[Array, "B T"],
    terms: LossTerms,
) -> MeanLoss:
    """Return the loss of logits x @ table.T. `table_VD` is the parameter in float32, split as its axes
    `vocabulary` and `width` are; products take it in the dtype of x. With a z-loss that changes over the run
    the head is computed twice: the loss is a straight line in its weight."""
    if not isinstance(terms.z_loss, Array):
        return _loss_in_pieces(x_BTD, table_VD, target_BT, terms)
    no_z_loss, full_z_loss = (
        cast(MeanLoss, _loss_in_pieces(x_BTD, table_VD, target_BT, replace(terms, z_loss=weight)))
        for weight in (0.0, 1.0)
    )
    slope = full_z_loss.mean - no_z_loss.mean
    return full_z_loss._replace(mean=no_z_loss.mean + terms.z_loss * slope)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _loss_in_pieces(x_BTD: Array, table_VD: Array, target_BT: Array, terms: LossTerms) -> MeanLoss:
    device_loss = partial(_device_losses, terms=terms)
    loss_BT, partition_BT = _on_mesh(device_loss, ("losses", "losses"))(x_BTD, table_VD, target_BT)
    return _mean_loss(loss_BT, partition_BT, target_BT, terms)


def _mean_loss(loss_BT: Array, partition_BT: Array, target_BT: Array, terms: LossTerms) -> MeanLoss:
    if terms.has_empty_places:
        loss_BT, partition_BT = (jnp.where(target_BT >= 0, x, 0.0) for x in (loss_BT, partition_BT))
    mean = mean_over_targets(loss_BT, target_BT, terms.has_empty_places)
    mean += terms.z_loss * mean_over_targets(jnp.square(partition_BT), target_BT, terms.has_empty_places)
    return MeanLoss(mean, loss_BT, partition_BT)


def _forward(
    x_BTD: Array, table_VD: Array, target_BT: Array, terms: LossTerms
) -> tuple[MeanLoss, tuple[Array, Array]]:
    divisor = 1 if terms.has_empty_places else target_BT.size
    device_loss = partial(_device_gradients, terms=terms, num_tokens=divisor)
    loss_and_gradients = _on_mesh(device_loss, ("losses", "losses", "x", "table"))
    loss_BT, partition_BT, dx_BTD, dtable_VD = loss_and_gradients(x_BTD, table_VD, target_BT)
    if terms.has_empty_places:
        count = _num_targets(target_BT)
        dx_BTD, dtable_VD = (dx_BTD / count).astype(dx_BTD.dtype), dtable_VD / count
    return _mean_loss(loss_BT, partition_BT, target_BT, terms), (dx_BTD, dtable_VD)


def _backward(terms: LossTerms, gradients: tuple[Array, Array], slope: MeanLoss) -> tuple[Array, Array, None]:
    dx_BTD, dtable_VD = gradients
    return (dx_BTD * slope.mean).astype(dx_BTD.dtype), dtable_VD * slope.mean, None


_loss_in_pieces.defvjp(_forward, _backward)


def _on_mesh(device_loss: Callable[..., Any], outputs: tuple[str, ...]) -> Callable[..., tuple[Array, ...]]:
    """Return `device_loss` applied to each device's tokens and shard of the table; its `outputs` are split
    like losses, x or the table. Without a mesh there is one device."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return partial(device_loss, devices=None)
    specs = {
        "losses": partition_spec("rows", "time"),
        "x": partition_spec("rows", "time", None),
        "table": partition_spec("vocabulary", "width"),
    }
    in_specs = (specs["x"], specs["table"], specs["losses"])
    devices = _Devices(splitting_axes("rows", "time"), splitting_axes("vocabulary"), splitting_axes("width"))
    local = per_device(
        partial(device_loss, devices=devices), in_specs, tuple(specs[output] for output in outputs)
    )
    return lambda *arrays: local(*map(jax.reshard, arrays, in_specs))


@dataclass(frozen=True)
class _Devices:
    """Names of the mesh axes that split the tokens, the vocabulary and the width of the table."""

    tokens: tuple[str, ...]
    vocabulary: tuple[str, ...]
    width: tuple[str, ...]

    def gather_table(self, table_VD: Array) -> Array:
        """Return the table in full width."""
        return jax.lax.all_gather(table_VD, self.width, axis=1, tiled=True)

    def sum_table(self, dtable_VD: Array) -> Array:
        """Return this device's shard of the table's gradient, summed over all tokens."""
        other_axes = tuple(axis for axis in self.tokens if axis not in self.width)
        part_VD = jax.lax.psum_scatter(dtable_VD, self.width, scatter_dimension=1, tiled=True)
        return jax.lax.psum(part_VD, other_axes)

    def mark_varying(self, x: Array) -> Array:
        """Mark x as different on every device, as the carry of a scan has to be."""
        return jax.lax.pcast(x, (*self.tokens, *self.vocabulary), to="varying")


@dataclass(frozen=True)
class _Head:
    """A device's shard of the head, in compute precision."""

    table_VD: Array
    softcap: float | None
    vocabulary: int | None
    """Number of rows of the full table that are tokens; None: all."""
    devices: _Devices | None

    def logits(self, x_ND: Array) -> Array:
        """Return the float32 logits of a piece over this device's shard of the vocabulary."""
        logits_NV = multiply_transposed(x_ND, self.table_VD)
        if self.softcap is not None:
            logits_NV = self.softcap * jnp.tanh(logits_NV / self.softcap)
        return self._only_tokens(logits_NV, -jnp.inf)

    def losses(self, logits_NV: Array, target_N: Array) -> tuple[Array, Array]:
        """Return the cross-entropy and the log-partition of each token, over the full vocabulary."""
        highest_N = self._reduce(jax.lax.pmax, jnp.max(logits_NV, axis=-1))
        sum_N = self._sum(jnp.sum(jnp.exp(logits_NV - highest_N[:, None]), axis=-1))
        target_logit_N = self._sum(jnp.sum(jnp.where(self._is_target(target_N), logits_NV, 0.0), axis=-1))
        partition_N = jnp.log(sum_N) + highest_N
        return partition_N - target_logit_N, partition_N

    def slopes(self, logits_NV: Array, target_N: Array, partition_N: Array, z_loss: float | Array) -> Array:
        """Return the gradient of one token's terms of the loss with respect to x @ table.T."""
        weight_N = 1 + 2 * z_loss * partition_N
        slope_NV = jnp.exp(logits_NV - partition_N[:, None]) * weight_N[:, None]
        slope_NV = jnp.where(self._is_target(target_N), slope_NV - 1, slope_NV)
        if self.softcap is None:
            return slope_NV
        return self._only_tokens(slope_NV * (1 - jnp.square(logits_NV / self.softcap)), 0.0)

    def products(self, x_ND: Array, slope_NV: Array) -> tuple[Array, Array]:
        """Return the gradients of x, summed over the vocabulary, and of this piece's table, [D, V]. Both
        contract the last axis and round the slope to compute precision, as `layers.matmul` does."""
        slope_NV = slope_NV.astype(x_ND.dtype)
        dx_ND = self._sum(multiply(slope_NV, self.table_VD))
        return dx_ND.astype(x_ND.dtype), multiply(transpose(x_ND), slope_NV)

    def _is_target(self, target_N: Array) -> Array:
        return target_N[:, None] == self._row_V()

    def _only_tokens(self, x_NV: Array, value: float) -> Array:
        """Replace the columns of rows that are no token."""
        return x_NV if self.vocabulary is None else jnp.where(self._row_V() < self.vocabulary, x_NV, value)

    def _row_V(self) -> Array:
        """Return the index in the full table of each row of this shard."""
        count = len(self.table_VD)
        first = 0 if self.devices is None else jax.lax.axis_index(self.devices.vocabulary) * count
        return first + jnp.arange(count)

    def _sum(self, x: Array) -> Array:
        return self._reduce(jax.lax.psum, x)

    def _reduce(self, reduction: Callable[..., Array], x: Array) -> Array:
        return x if self.devices is None else reduction(x, self.devices.vocabulary)


def _make_head(table_VD: Array, x_BTD: Array, terms: LossTerms, devices: _Devices | None) -> _Head:
    table_VD = table_VD.astype(x_BTD.dtype)
    table_VD = table_VD if devices is None else devices.gather_table(table_VD)
    return _Head(table_VD, terms.softcap, terms.vocabulary, devices)


def _device_losses(
    x_BTD: Array, table_VD: Array, target_BT: Array, *, terms: LossTerms, devices: _Devices | None
) -> tuple[Array, Array]:
    """Return cross-entropy and log-partition of one device's tokens, each [B, T]."""
    head = _make_head(table_VD, x_BTD, terms, devices)

    def piece(carry: None, inputs: tuple[Array, Array]) -> tuple[None, tuple[Array, Array]]:
        x_ND, target_N = inputs
        return carry, head.losses(head.logits(x_ND), target_N)

    _, outputs = _scan_pieces(piece, None, (x_BTD, target_BT), len(head.table_VD))
    return outputs


def _device_gradients(
    x_BTD: Array,
    table_VD: Array,
    target_BT: Array,
    *,
    terms: LossTerms,
    num_tokens: int,
    devices: _Devices | None,
) -> tuple[Array, Array, Array, Array]:
    """Return cross-entropy and log-partition of one device's tokens, each [B, T], and the gradients of the
    mean over `num_tokens` tokens with respect to x and to this device's shard of the table."""
    head = _make_head(table_VD, x_BTD, terms, devices)

    def piece(dtable_DV: Array, inputs: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array, Array]]:
        x_ND, target_N = inputs
        logits_NV = head.logits(x_ND)
        loss_N, partition_N = head.losses(logits_NV, target_N)
        slope_NV = head.slopes(logits_NV, target_N, partition_N, terms.z_loss) / num_tokens
        if terms.has_empty_places:
            slope_NV = jnp.where(target_N[:, None] >= 0, slope_NV, 0.0)
        dx_ND, dpiece_DV = head.products(x_ND, slope_NV)
        return dtable_DV + dpiece_DV, (loss_N, partition_N, dx_ND)

    start_DV = jnp.zeros(head.table_VD.shape[::-1], jnp.float32)
    start_DV = start_DV if devices is None else devices.mark_varying(start_DV)
    dtable_DV, outputs = _scan_pieces(piece, start_DV, (x_BTD, target_BT), len(head.table_VD))
    dtable_VD = dtable_DV.T
    return *outputs, dtable_VD if devices is None else devices.sum_table(dtable_VD)


def _scan_pieces(
    piece: Callable[[Any, Any], tuple[Any, Any]], carry: Any, arrays: tuple[Array, ...], vocabulary: int
) -> tuple[Any, Any]:
    """Scan arrays [B, T, ...] in pieces of equal size, and one for the rest. Return the last carry, and the
    outputs as [B, T, ...]."""
    B, T = arrays[0].shape[:2]
    size = min(loss_piece_tokens(vocabulary), B * T)
    count = B * T // size
    flat = [array.reshape(B * T, *array.shape[2:]) for array in arrays]
    pieces = tuple(array[: count * size].reshape(count, size, *array.shape[1:]) for array in flat)
    carry, outputs = jax.lax.scan(piece, carry, pieces)
    outputs = jax.tree.map(lambda array: array.reshape(count * size, *array.shape[2:]), outputs)
    if B * T % size:
        carry, last_outputs = piece(carry, tuple(array[count * size :] for array in flat))
        outputs = jax.tree.map(lambda *parts: jnp.concatenate(parts), outputs, last_outputs)
    return carry, jax.tree.map(lambda array: array.reshape(B, T, *array.shape[1:]), outputs)
