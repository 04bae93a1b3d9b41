"""What training, evaluation and probing know of a model: plain functions over a flat dict of parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from harness.config.schema.run import ComputeConfig
from harness.models.mechanism import ModelDims, RouterStats
from harness.models.model_spec import ModelSpec
from harness.models.mup import learning_rate_scale, relative_width
from harness.models.parameters import ParamSpec, Stacking, init_param, param_specs, sort_by_path

Params = dict[str, Array]


@dataclass(frozen=True)
class Model(ABC):
    """A trainable model. Parameters are float32 whatever the compute precision.

    The functions take them by *stored* path: with scanned layers each `repeats.j.*` holds the layers
    j, j + period, ... along a leading axis; with unrolled layers stored and canonical paths are the same.
    """

    spec: ModelSpec
    compute: ComputeConfig
    stacking: Stacking
    param_specs: dict[str, ParamSpec]
    """By canonical path, one entry a layer: `layers.3.attention.query`."""
    stored_specs: dict[str, ParamSpec]
    """By stored path: what `init` returns and shardings are made for."""
    _graph: nnx.GraphDef
    _abstract: nnx.State

    @property
    def shape(self) -> ModelDims:
        return self.spec.shape

    @property
    def parameters(self) -> int:
        return self.non_embedding_parameters + self.embedding_parameters

    @property
    @abstractmethod
    def row_length(self) -> int:
        """Int32 values of one example as it is read."""

    @property
    @abstractmethod
    def loss_unit(self) -> str:
        """What a loss is counted in."""

    @property
    @abstractmethod
    def non_embedding_parameters(self) -> int:
        """Parameters of the layers and what stands between them and the output."""

    @property
    def active_parameters(self) -> int:
        """Non-embedding parameters that one token passes through."""
        idle = sum(self.spec.feedforward.inactive_parameters(context) for context in self.spec.layer_contexts)
        return self.non_embedding_parameters - idle

    @property
    @abstractmethod
    def embedding_parameters(self) -> int:
        """Parameters of what reads in and writes out."""

    @property
    @abstractmethod
    def flops_per_token(self) -> float:
        """Model FLOPs of one trained token."""

    @property
    @abstractmethod
    def executed_flops_per_token(self) -> float:
        """FLOPs of one trained token as the code multiplies them."""

    @property
    @abstractmethod
    def cache_bytes(self) -> float:
        """What decoding keeps of one sequence of the config's length, in compute precision."""

    @property
    def learning_rate_scales(self) -> dict[str, float]:
        """By stored path, what the learning rate is multiplied by; all 1 where the width is the base's."""
        relative = relative_width(self.spec.config, self.shape.width)
        return {
            path: learning_rate_scale(self.param_specs[self.stacking.canonical_paths(path)[0]], relative)
            for path in self.stored_specs
        }

    def init(self, seed: int) -> dict[str, np.ndarray]:
        """Parameters by stored path, float32, on the host; each depends on seed and canonical path alone."""
        return self.stack({path: init_param(seed, path, spec) for path, spec in self.param_specs.items()})

    def stack(self, canonical: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by stored path, from arrays by canonical path."""
        return self.stacking.stack(canonical, self.stored_specs)

    def unstack(self, stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by canonical path, from arrays by stored path."""
        return self.stacking.unstack(stored)

    @abstractmethod
    def token_losses(self, params: Params, rows_BR: Int[Array, "B R"], /) -> Float[Array, "B T"]:
        """The loss of each token of some examples, float32."""

    @abstractmethod
    def loss(
        self, params: Params, rows_BR: Int[Array, "B R"], /, z_loss: float
    ) -> tuple[Float[Array, ""], dict[str, Any]]:
        """What is minimised, and its parts: among them `loss`, the mean of `token_losses`, and `signals` of
        layers with experts by stored path."""

    def update_after_step(self, params: Params, signals: Mapping[str, RouterStats]) -> Params:
        """The parameters with what changes without a gradient, as the step's mean signals say."""
        changed = {}
        for layer, given in signals.items():
            start = f"{layer}.feedforward."
            own = {path.removeprefix(start): params[path] for path in params if path.startswith(start)}
            after = self.spec.feedforward.update_after_step(own, given)
            changed |= {start + name: value for name, value in after.items()}
        return params | changed

    @abstractmethod
    def activation_bytes(self, tokens: int) -> int:
        """A guess of what the backward pass keeps for so many tokens."""

    def module(self, params: Params) -> nnx.Module:
        """The module with these parameters in it."""
        leaves = [params[path] for path in self.stored_specs]
        state = jax.tree.unflatten(jax.tree.structure(self._abstract), leaves)
        return nnx.merge(self._graph, state)


def split_module(
    module: nnx.Module, stacking: Stacking
) -> tuple[dict[str, ParamSpec], dict[str, ParamSpec], nnx.GraphDef, nnx.State]:
    """The last four fields of a Model: what a module declares, by both kinds of path, and its halves."""
    graph, state = nnx.split(module, nnx.Param)
    each = param_specs(module)
    specs = {member: spec for path, spec in each.items() for member in stacking.canonical_paths(path)}
    stored = {path: stacking.stored_spec(path, spec) for path, spec in each.items()}
    return sort_by_path(specs), stored, graph, state
