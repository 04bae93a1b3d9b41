"""The interface of a model, for training and inspection: pure functions over a flat dict of parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import jax
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from harness.config.schema.run import ComputeConfig, Precision, Remat
from harness.models.kernels import CPU
from harness.models.mechanism import ModelDims, RouterStats
from harness.models.model_spec import ModelSpec
from harness.models.parameters import ParamSpec, Stacking, init_param, param_specs, sort_by_path
from harness.models.products.product_registry import count_eight_bit_parameters
from harness.models.scaling.scaling_registry import Scale
from harness.models.step_clock import StepClock

Params = dict[str, Array]


@dataclass(frozen=True)
class Model(ABC):
    """A trainable model. Parameters are float32 for every compute precision.

    The functions take parameters by *stored* path: with scanned layers each `repeats.j.*` holds the layers j,
    j + period, ... along a leading axis. With unrolled layers, stored and canonical paths are the same.
    """

    _module: ClassVar[Any]
    """Class of the module, built from a spec and a ComputeConfig; it has a `stacking`."""
    _flops: ClassVar[Any]
    """Module with the FLOP counts of a spec of this kind."""
    _sizing: ClassVar[Any]
    """Module with the parameter counts of a spec of this kind."""

    spec: ModelSpec
    compute: ComputeConfig
    stacking: Stacking
    param_specs: dict[str, ParamSpec]
    """Specs by canonical path, one entry per layer: `layers.3.attention.query`."""
    stored_specs: dict[str, ParamSpec]
    """Specs by stored path, the keys of `init`'s result and of the parameter shardings."""
    _graph: nnx.GraphDef
    _abstract: nnx.State

    @classmethod
    def assemble(cls, spec: ModelSpec, compute: ComputeConfig) -> Self:
        """Build and split the module of a spec."""
        module = cls._module(spec, compute)
        stacking, declared = module.stacking, param_specs(module)
        specs = {
            name: spec.initial_spec(name, param)
            for path, param in declared.items()
            for name in stacking.canonical_paths(path)
        }
        stored = {
            path: stacking.stored_spec(path, specs[stacking.canonical_paths(path)[0]]) for path in declared
        }
        return cls(spec, compute, stacking, sort_by_path(specs), stored, *nnx.split(module, nnx.Param))

    def with_vocabulary_multiple(self, multiple: int) -> Self:
        """Return the model with another number of rows that are no token (`model.vocabulary_multiple`)."""
        config = replace(self.spec.config, vocabulary_multiple=multiple)
        return type(self).assemble(replace(self.spec, config=config), self.compute)

    def with_reference_kernels(self) -> Self:
        """Return the model for a CPU, wherever it was trained."""
        return type(self).assemble(replace(self.spec, target=CPU), self.compute)

    @property
    def shape(self) -> ModelDims:
        """Sizes of the model."""
        return self.spec.shape

    @property
    def parameters(self) -> int:
        """Number of all parameters, with the rows of embedding and head that are no token."""
        return sum(param.size for param in self.param_specs.values())

    @property
    def table_rows(self) -> int:
        """Number of rows of embedding and head: one a token, and those that are no token."""
        return self.shape.vocabulary

    @property
    def table_paths(self) -> frozenset[str]:
        """Paths of the parameters with a row a token, and rows that are no token (`spec.table_rows`)."""
        return frozenset(path for path, spec in self.param_specs.items() if spec.axes[:1] == ("vocabulary",))

    @property
    def non_embedding_parameters(self) -> int:
        """Number of parameters of the layers and of everything between them and the output."""
        return self._sizing.count_non_embedding(self.spec)

    @property
    def embedding_parameters(self) -> int:
        """Number of parameters of the input embedding and the output head."""
        return self.parameters - self.non_embedding_parameters

    @property
    @abstractmethod
    def row_length(self) -> int:
        """Number of int32 values in one example as it is read."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one example as it is read."""
        return (self.row_length,)

    @property
    def row_dtype(self) -> str:
        """Dtype of the examples."""
        return "int32"

    @property
    def active_parameters(self) -> int:
        """Number of non-embedding parameters that one token uses."""
        idle = sum(self.spec.feedforward.inactive_parameters(context) for context in self.spec.contexts)
        return self.non_embedding_parameters - idle

    @property
    def fp8_parameters(self) -> int:
        """Number of parameters of weights whose products have 8-bit factors."""
        return count_eight_bit_parameters(self._abstract)

    @property
    def flops_per_token(self) -> float:
        """Model FLOPs per trained token."""
        return self._flops.model_flops(self.spec)

    @property
    def executed_flops_per_token(self) -> float:
        """Executed FLOPs per trained token, padding and recomputation included."""
        return self._flops.executed_flops(self.spec, self.compute.remat)

    @property
    def bytes_per_value(self) -> int:
        """Bytes of a value in compute precision."""
        return 2 if self.compute.dtype is Precision.bfloat16 else 4

    @property
    @abstractmethod
    def cache_bytes(self) -> float:
        """Bytes that decoding caches for one sequence of the config's length, in compute precision."""

    @property
    def scales(self) -> dict[str, Scale]:
        """Factors of rate, decay and epsilon by stored path; all are 1 at the base size."""
        first_paths = {path: self.stacking.canonical_paths(path)[0] for path in self.stored_specs}
        return {
            path: self.spec.scaling.scale(first, self.param_specs[first], self.spec.growth)
            for path, first in first_paths.items()
        }

    @property
    def learning_rate_scales(self) -> dict[str, float]:
        """Learning-rate factor by stored path; all are 1 at the base size."""
        return {path: scale.rate for path, scale in self.scales.items()}

    def init(self, seed: int) -> dict[str, np.ndarray]:
        """Return float32 host arrays by stored path; each depends only on seed and canonical path."""
        return self.stack({path: init_param(seed, path, spec) for path, spec in self.param_specs.items()})

    def stack(self, canonical: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Convert arrays by canonical path to arrays by stored path."""
        return self.stacking.stack(canonical, self.stored_specs)

    def unstack(self, stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Convert arrays by stored path to arrays by canonical path."""
        return self.stacking.unstack(stored)

    @abstractmethod
    def token_losses(self, params: Params, rows_BR: Int[Array, "B R"], /) -> Float[Array, "B T"]:
        """Return the float32 loss of each token of the examples."""

    @abstractmethod
    def loss(
        self, params: Params, rows_BR: Int[Array, "B R"], /, z_loss: float, clock: StepClock | None = None
    ) -> tuple[Float[Array, ""], dict[str, Any]]:
        """Return the loss that is minimised, and a dict of its parts. `loss` is the mean of `token_losses`;
        `signals` holds the RouterStats of layers with experts, by stored path. `clock`: the place of the
        step, for a model that asks for it (`asks_clock`)."""

    @property
    def loss_is_bound(self) -> bool:
        """True if `token_losses` is only an upper bound of the loss."""
        return False

    @property
    def has_empty_places(self) -> bool:
        """True if rows may have places without a token, -1, which are no target."""
        return False

    @property
    def asks_clock(self) -> bool:
        """True if training depends on the place of a step in its run."""
        return False

    def update_after_step(self, params: Params, signals: Mapping[str, RouterStats]) -> Params:
        """Return the parameters after the updates without a gradient, from the step's mean statistics."""
        changed = {}
        for layer, layer_stats in signals.items():
            prefix = f"{layer}.feedforward."
            own = [path for path in params if path.startswith(prefix)]
            layer_params = {path.removeprefix(prefix): params[path] for path in own}
            new_values = self.spec.feedforward.update_after_step(layer_params, layer_stats)
            changed |= {prefix + name: value for name, value in new_values.items()}
        return params | changed

    @property
    def saved_scores(self) -> float:
        """Attention scores of one token in all layers that the backward pass saves."""
        return self._saved_values()[1]

    def activation_bytes(self, tokens: int) -> int:
        """Estimate the bytes that the backward pass saves of this many tokens: products, norms, scores."""
        products, scores, output_bytes = self._saved_values()
        saved_bytes = {
            Remat.none: products * self.bytes_per_value + scores * 8,
            Remat.dots: products * self.bytes_per_value,
            Remat.full: 0.0,
        }
        inputs = self.shape.layers * self.shape.width * self.bytes_per_value
        return int(tokens * (saved_bytes[self.compute.remat] + inputs + output_bytes))

    @abstractmethod
    def _saved_values(self) -> tuple[float, float, float]:
        """Return the values of products and of scores per token, and the bytes of its output."""

    def module(self, params: Params) -> nnx.Module:
        """Return the module with these parameters."""
        leaves = [params[path] for path in self.stored_specs]
        state = jax.tree.unflatten(jax.tree.structure(self._abstract), leaves)
        return nnx.merge(self._graph, state)
