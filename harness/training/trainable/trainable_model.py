"""Trainable part of a model: all of it, its last layers, or LoRA factors beside its matrices.

The choice is fixed before anything is traced: only trainable parameters have gradients and optimizer
state. Frozen parameters stay in the state, so that a checkpoint can be read without its parent's.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from harness.config.schema.finetune import FinetuneConfig, FinetuneMethod
from harness.config.schema.run import Config, OptimizerConfig, Precision
from harness.core.errors import UserError
from harness.models import Model, ParamSpec, RouterStats, flops
from harness.models.counting.jaxpr import count_function_flops
from harness.models.families.model_family import configured_family
from harness.models.layers import DTYPES
from harness.models.parameters import expert_matrix
from harness.training.optimizers.matrices import as_matrix, hidden_matrices
from harness.training.optimizers.optimizer_parts import split_parameters
from harness.training.optimizers.parameter_group import ParameterGroup
from harness.training.optimizers.rounding.stored_dtypes import round_moments, widen
from harness.training.optimizers.run_optimizer import RunOptimizer
from harness.training.trainable.lora import LoraFactors, lora_product, make_factors


@dataclass(frozen=True)
class TrainableModel:
    """A model with its trainable parameters; `loss` and `token_losses` have the model's signatures."""

    model: Model
    config: FinetuneConfig
    trainable_paths: frozenset[str] | None
    """Stored paths of the trainable parameters; None: all of the model."""
    lora_factors: Mapping[str, LoraFactors]
    """LoRA factors by stored path of their matrix; empty without LoRA."""

    @functools.cached_property
    def stored_specs(self) -> dict[str, ParamSpec]:
        """Specs of all parameters of a state: the model's by stored path, and `lora.<path>.a` and `.b`."""
        factor_specs = {
            _factor_path(path, name): self.model.stacking.stored_spec(path, spec)
            for path, factors in self.lora_factors.items()
            for name, spec, _ in factors
        }
        return self.model.stored_specs | factor_specs

    def layer_spec(self, stored: str, canonical: str) -> ParamSpec:
        """Return the spec of a layer that a stacked path holds, with initial values of its own."""
        if canonical in self.model.param_specs:
            return self.model.param_specs[canonical]
        stacked = self.stored_specs[stored]
        return replace(stacked, shape=stacked.shape[1:], axes=stacked.axes[1:])

    @functools.cached_property
    def canonical_paths(self) -> dict[str, list[str]]:
        """Canonical paths that each stored path holds, in the order of its leading axis."""
        layers = {path: self.model.stacking.canonical_paths(path) for path in self.model.stored_specs}
        factors = {
            _factor_path(path, name): [_factor_path(layer, name) for layer in layers[path]]
            for path in self.lora_factors
            for name in "ab"
        }
        return layers | factors

    @functools.cached_property
    def dtypes(self) -> dict[str, jnp.dtype]:
        """Dtypes that all parameters of a state are kept in, by stored path."""
        return self._kept_in(self.model.compute.parameter_dtype)

    def _kept_in(self, precision: Precision) -> dict[str, jnp.dtype]:
        """Return the dtype by stored path if matrices are kept in this one. Vectors are always float32: they
        are a thousandth of the state, and a gain near 1 would move in steps of 1/128."""
        return {
            path: jnp.dtype(DTYPES[precision] if spec.is_matrix else jnp.float32)
            for path, spec in self.stored_specs.items()
        }

    @property
    def num_trainable(self) -> int:
        """Number of trainable parameters."""
        return sum(spec.size for path, spec in self.stored_specs.items() if self._is_trainable(path))

    @property
    def flops_per_token(self) -> float:
        """Model FLOPs of one trained token; the backward pass goes only as far as gradients need it."""
        if self.lora_factors:
            return flops.model_flops_lora(self.model.spec, self._active_factor_parameters)
        if self.trainable_paths is not None:
            return flops.model_flops_last_layers(self.model.spec, self.config.trainable_layers or 0)
        return self.model.flops_per_token

    @property
    def _active_factor_parameters(self) -> float:
        """LoRA parameters used per token; factors of experts count by their active share."""
        expert_sizes = [spec.size for spec in self.model.param_specs.values() if spec.axes[0] == "experts"]
        idle = self.model.non_embedding_parameters - self.model.active_parameters
        active_share = 1 - idle / sum(expert_sizes) if expert_sizes else 1.0
        specs = (spec for path, spec in self.stored_specs.items() if self._is_trainable(path))
        return sum(spec.size * (active_share if "experts" in spec.axes else 1) for spec in specs)

    def executed_flops_per_token(self, sequences: int) -> float:
        """Return the FLOPs of one trained token as the code multiplies them, for a gradient of `sequences`
        sequences. The product of the LoRA factors is computed once for all of them."""
        if self.trainable_paths is None:
            return self.model.executed_flops_per_token
        length = self.model.spec.sequence_length
        specs = self.stored_specs.items()
        shapes = {path: jax.ShapeDtypeStruct(spec.shape, jnp.float32) for path, spec in specs}
        trainable, frozen = split_trainable(shapes, self.trainable_paths)
        tokens = jax.ShapeDtypeStruct((sequences, length + 1), jnp.int32)

        def loss(trainable: Params, frozen: Params, tokens_BT1: Array) -> Array:
            return self.loss(trainable | frozen, tokens_BT1, 0.0)[0]

        total = count_function_flops(jax.value_and_grad(loss), trainable, frozen, tokens)
        return total / (sequences * length)

    def merged_params(self, params: Params) -> Params:
        """Return the weights that the model computes with, by its stored paths: W plus its LoRA update."""
        scale = self.config.alpha / self.config.rank
        sums = {
            path: widen(params[path]) + scale * self._lora_update(path, params) for path in self.lora_factors
        }
        return {path: params[path] for path in self.model.stored_specs} | sums

    @property
    def has_empty_places(self) -> bool:
        """True if rows may have places without a token, which are no target."""
        return self.model.has_empty_places

    def loss(self, params: Params, *inputs: Any) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Return the model's loss and statistics with merged weights."""
        return self.model.loss(self.merged_params(params), *inputs)

    def update_after_step(self, params: Params, router_stats: Mapping[str, RouterStats]) -> Params:
        """Apply the model's updates without a gradient; frozen parameters keep their bits."""
        after = self.model.update_after_step(params, router_stats)
        return {path: after[path] if self._is_trainable(path) else params[path] for path in params}

    def token_losses(self, params: Params, *inputs: Any) -> Float[Array, "B T"]:
        """Return the model's loss of each token, in nats, with merged weights."""
        return self.model.token_losses(self.merged_params(params), *inputs)

    def build_optimizer(self, config: OptimizerConfig) -> RunOptimizer:
        """Build the optimizer of the trainable parameters. Raises UserError for a bad choice."""
        carried = self.model.spec.config.base_width is not None
        group = self._trainable_group()
        parts = split_parameters(config, group, self.canonical_paths, has_base_width=carried)
        if {config.moment_dtype, self.model.compute.parameter_dtype} == {Precision.float32}:
            return RunOptimizer(config, parts)
        dtypes = self._kept_in(config.moment_dtype)
        return RunOptimizer(config, parts, lambda optimizer: round_moments(optimizer, dtypes))

    def _trainable_group(self) -> ParameterGroup:
        """Return the trainable parameters with what an optimizer may know. Both LoRA factors decay, so
        W + a b returns to W. `a` has the learning rate of a matrix with W's inputs, `b` that of one whose
        input size is fixed."""
        model = self.model
        growth, scales, matrices = model.spec.growth, model.scales, hidden_matrices(model)
        decay = {path: spec.decays for path, spec in self.stored_specs.items()}
        for path, factors in self.lora_factors.items():
            for name, spec, contracted in factors:
                factor_path = _factor_path(path, name)
                scales[factor_path] = model.spec.scaling.scale(factor_path, spec, growth)
                matrices[factor_path] = as_matrix(expert_matrix(spec), contracted, growth.width)
        group = ParameterGroup(
            self.stored_specs,
            decay,
            {path: scale.rate for path, scale in scales.items()},
            matrices,
            decay_factors={path: scale.decay for path, scale in scales.items()},
            epsilon_factors={path: scale.epsilon for path, scale in scales.items()},
        )
        return group.only(set(filter(self._is_trainable, self.stored_specs)))

    def _is_trainable(self, path: str) -> bool:
        return self.trainable_paths is None or path in self.trainable_paths

    def _lora_update(self, path: str, params: Params) -> Array:
        a, b = (_factor_path(path, name) for name in "ab")
        axes_a, axes_b = self.stored_specs[a].axes, self.stored_specs[b].axes
        return lora_product(widen(params[a]), widen(params[b]), axes_a, axes_b)


def make_trainable(config: Config, model: Model) -> TrainableModel:
    """Build the trainable model that `config.finetune` selects. Raises UserError for a bad selection."""
    finetune = config.finetune
    if finetune.method is not FinetuneMethod.none and not configured_family(config).entry.finetunes:
        raise UserError(
            f"finetune.method={finetune.method.value} is for decoders only, and this is"
            f" model.kind={config.model.kind}. Leave it out."
        )
    if finetune.method is not FinetuneMethod.last_layers and finetune.trainable_layers is not None:
        raise UserError(
            f"finetune.trainable_layers={finetune.trainable_layers} is only for finetune.method=last_layers, "
            f"and this is finetune.method={finetune.method.value}. Leave it out."
        )
    if finetune.method is FinetuneMethod.lora:
        factors = _make_factors(finetune, model)
        trainable_paths = frozenset(_factor_path(path, name) for path in factors for name in "ab")
        return TrainableModel(model, finetune, trainable_paths, factors)
    last_layers = _last_layers(config, model) if finetune.method is FinetuneMethod.last_layers else None
    return TrainableModel(model, finetune, last_layers, {})


def _make_factors(finetune: FinetuneConfig, model: Model) -> dict[str, LoraFactors]:
    """Return LoRA factors for every hidden matrix, by its stored path."""
    paths = hidden_matrices(model)
    if not paths:
        raise UserError("finetune.method=lora: the model has no hidden matrix. Choose finetune.method=full.")
    specs = {path: model.param_specs[model.stacking.canonical_paths(path)[0]] for path in paths}
    return {path: make_factors(spec, finetune.rank) for path, spec in specs.items()}


def _last_layers(config: Config, model: Model) -> frozenset[str]:
    """Return the stored paths of the last layers and everything after them."""
    layers, total = config.finetune.trainable_layers, model.shape.layers
    if layers is None or not 1 <= layers <= total:
        raise UserError(
            f"finetune.trainable_layers={'null' if layers is None else layers}: give the number of last "
            f"layers to train, from 1 to {total} (all layers of the model)."
        )
    if config.compute.scan_layers:
        raise UserError(
            "finetune.method=last_layers needs layers of their own, and scanned layers are one parameter. "
            "Set compute.scan_layers=false."
        )
    frozen = tuple(f"layers.{layer}." for layer in range(total - layers))
    paths = model.stored_specs.keys() - {"embedding"}
    return frozenset(path for path in paths if not path.startswith(frozen))


def _factor_path(path: str, name: str) -> str:
    """Return the path of a factor of the matrix at `path`, stored or canonical."""
    return f"lora.{path}.{name}"


Params = dict[str, Array]
Leaf = TypeVar("Leaf")


def split_trainable(
    params: Mapping[str, Leaf], trainable_paths: Collection[str] | None
) -> tuple[dict[str, Leaf], dict[str, Leaf]]:
    """Split parameters into (trainable, frozen). `trainable_paths` None: all are trainable."""
    if trainable_paths is None:
        return {**params}, {}
    trainable = {path: leaf for path, leaf in params.items() if path in trainable_paths}
    return trainable, {path: leaf for path, leaf in params.items() if path not in trainable_paths}
