"""The diffusion transformer (DiT, arXiv:2212.09748): maps patches, time and label to velocities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from harness.config.schema.run import ComputeConfig
from harness.models.diffusion.attention import FullAttention
from harness.models.diffusion.model_spec import ImageModelSpec
from harness.models.execution.layer_stack import LayerStack, apply_layers, build_layers
from harness.models.layers import DTYPES, gather_rounded, matmul, project
from harness.models.parameters import weight, zeros
from harness.parallel.sharding.axis_rules import out_sharding, reshape_rows

TIME_FEATURES = 64
"""Number of cosines and sines that encode the time, as for positions up to 1000 (pure noise)."""


class DiTLayer(nnx.Module):
    """Residual layer: attention, then feed-forward, each modulated by the conditioning."""

    def __init__(self, spec: ImageModelSpec, layer: int):
        context = spec.context(layer)
        self.attention = FullAttention(context)
        self.feedforward = spec.feedforward.build(context)
        self.conditioning = spec.conditioning.build(context)

    def __call__(self, x_BTD: Array, condition_B1D: Array) -> tuple[Array, None]:
        """Map [B, T, D] to [B, T, D], and None for the router statistics, which this layer does not have."""
        branches = self.attention, self.feedforward
        for branch, modulation in zip(branches, self.conditioning(condition_B1D), strict=True):
            x_BTD = x_BTD + modulation.post(branch(modulation.pre(x_BTD)))
        return x_BTD, None


class DiffusionTransformer(nnx.Module):
    """Map noised patches [B, T, I], times [B] and labels [B] to float32 velocities [B, T, I]."""

    def __init__(self, spec: ImageModelSpec, compute: ComputeConfig):
        shape = spec.shape
        D, I = shape.width, shape.values
        self.dtype, self.remat = DTYPES[compute.dtype], compute.remat
        self.extra, self.grid = spec.conditioning.entry.implementation.extra, shape.grid
        self.microbatches = spec.pipeline.microbatches
        self.embedding = weight((I, D), (None, "width"), fan_in=I)
        self.time_in = weight((TIME_FEATURES, D), (None, "width"), fan_in=TIME_FEATURES)
        self.time_out = weight((D, D), ("width", None), fan_in=D)
        self.labels = weight((shape.vocabulary, D), (None, "width"), fan_in=1)
        scan = compute.scan_layers is True
        self.stacking, self.repeats, self.layers = build_layers(DiTLayer, spec, scan)
        self.conditioning = spec.conditioning.build(spec.head_context)
        self.head = zeros((D, I), ("width", None))

    def __call__(self, x_BTI: Array, time_B: Array, label_B: Array) -> Array:
        """Map noised patches [B, T, I] to velocities [B, T, I]; times lie in [0, 1], labels are classes."""
        time_B1D, labels_VD = self._time(time_B), gather_rounded(self.labels, self.dtype)
        label_B1D = labels_VD.at[label_B[:, None]].get(out_sharding=out_sharding("rows", None, None))
        label_B1D = label_B1D.astype(
            self.dtype
        )  # after the lookup, so that its gradient is summed in float32
        condition_B1D = time_B1D + label_B1D
        positions_TD = jnp.asarray(positions(*self.grid, self.embedding.shape[1]), self.dtype)
        x_BTD = project(x_BTI.astype(self.dtype), self.embedding) + positions_TD
        if self.extra:
            x_BTD = jnp.concatenate([time_B1D, label_B1D, x_BTD], axis=1)
        stack = LayerStack(self.repeats, self.layers, self.remat, self.microbatches)
        x_BTD, _ = apply_layers(stack, x_BTD, condition_B1D, lambda condition_B1D: condition_B1D)
        (modulation,) = self.conditioning(condition_B1D)
        return self._velocity(modulation.pre(x_BTD[:, self.extra :]))

    def _time(self, time_B: Array) -> Array:
        """Return the time embedding [B, 1, D]: a small network over cosines and sines."""
        count = TIME_FEATURES // 2
        frequency_J = 1_000 * 10_000 ** (-np.arange(count) / count)
        angle_B1J = time_B[:, None, None] * frequency_J.astype(np.float32)
        features = jnp.concatenate([jnp.cos(angle_B1J), jnp.sin(angle_B1J)], axis=-1).astype(self.dtype)
        return project(jax.nn.silu(project(features, self.time_in)), self.time_out)

    def _velocity(self, x_BTD: Array) -> Array:
        B, T, D = x_BTD.shape
        x_ND = reshape_rows(x_BTD, (B * T, D), None)
        velocity_NI = matmul(
            x_ND, gather_rounded(self.head, self.dtype), (None, None), jnp.dtype(jnp.float32)
        )
        return reshape_rows(velocity_NI, (B, T, -1), None, None)


def positions(rows: int, columns: int, width: int) -> np.ndarray:
    """Return position embeddings [T, D]: sinusoids of the patch's row in one half, of its column in the other
    (arXiv:1706.03762, section 3.5)."""
    count = width // 4
    frequency_J = 10_000.0 ** (-np.arange(count) / count)
    row_TJ = np.repeat(np.arange(rows), columns)[:, None] * frequency_J
    column_TJ = np.tile(np.arange(columns), rows)[:, None] * frequency_J
    waves = [wave(angle) for angle in (row_TJ, column_TJ) for wave in (np.cos, np.sin)]
    return np.concatenate(waves, axis=1).astype(np.float32)
