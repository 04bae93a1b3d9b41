"""What of a model learns: all of it, its last layers, or low-rank factors beside its matrices.

Which parameters learn is fixed before anything is traced: gradients and optimizer state exist for those
alone. The others are part of the state all the same, so that a checkpoint is read without its parent's.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float

from harness.config.schema.run import Config, FinetuneConfig, FinetuneMethod, OptimizerConfig
from harness.core.errors import UserError
from harness.models import ImageModel, Model, ParamSpec, RouterStats, flops
from harness.models.mup import expert_matrix, learning_rate_scale, relative_width
from harness.models.parameters import init_param
from harness.training.optimizers.muon import as_matrix, hidden_matrices
from harness.training.optimizers.optimizer import make_optimizer
from harness.training.trainable.lora import LoraFactors, lora_product, make_factors


@dataclass(frozen=True)
class TrainableModel:
    """A model and which of its parameters learn; `loss` and `token_losses` are called as the model's are."""

    model: Model
    config: FinetuneConfig
    trainable_paths: frozenset[str] | None
    """Stored paths of what learns; None: all of the model."""
    lora_factors: Mapping[str, LoraFactors]
    """By stored path of the matrix that they stand beside; empty but for LoRA."""

    @functools.cached_property
    def stored_specs(self) -> dict[str, ParamSpec]:
        """Specs of all that a state holds: the model's by stored path, `lora.<path>.a`, `lora.<path>.b`."""
        factor_specs = {
            _factor_path(path, name): self.model.stacking.stored_spec(path, spec)
            for path, factors in self.lora_factors.items()
            for name, spec, _ in factors
        }
        return self.model.stored_specs | factor_specs

    @property
    def num_trainable(self) -> int:
        """Parameters that learn."""
        return sum(spec.size for path, spec in self.stored_specs.items() if self._is_trainable(path))

    @property
    def flops_per_token(self) -> float:
        """Model FLOPs of one trained token: backward goes no further than what learns asks for."""
        blueprint = self.model.spec
        if self.lora_factors:
            return flops.model_flops_lora(blueprint, self._active_factor_parameters)
        if self.trainable_paths is not None:
            return flops.model_flops_last_layers(blueprint, self.config.trainable_layers or 0)
        return self.model.flops_per_token

    @property
    def _active_factor_parameters(self) -> float:
        """Parameters of factors that one token passes through: of experts', the share that is not idle."""
        expert_sizes = [spec.size for spec in self.model.param_specs.values() if spec.axes[0] == "experts"]
        idle = self.model.non_embedding_parameters - self.model.active_parameters
        active_share = 1 - idle / sum(expert_sizes) if expert_sizes else 1.0
        specs = (spec for path, spec in self.stored_specs.items() if self._is_trainable(path))
        return sum(spec.size * (active_share if "experts" in spec.axes else 1) for spec in specs)

    def executed_flops_per_token(self, sequences: int) -> float:
        """FLOPs of one trained token as the code multiplies them, for a gradient over so many sequences: the
        factors of LoRA are multiplied once for all of them."""
        if self.trainable_paths is None:
            return self.model.executed_flops_per_token
        length = self.model.spec.sequence_length
        shapes = {
            path: jax.ShapeDtypeStruct(spec.shape, jnp.float32) for path, spec in self.stored_specs.items()
        }
        trainable, frozen = split_trainable(shapes, self.trainable_paths)
        tokens = jax.ShapeDtypeStruct((sequences, length + 1), jnp.int32)

        def loss(trainable: Params, frozen: Params, tokens_BT1: Array) -> Array:
            return self.loss(trainable | frozen, tokens_BT1, 0.0)[0]

        return flops.count_function_flops(jax.value_and_grad(loss), trainable, frozen, tokens) / (
            sequences * length
        )

    def init_params(
        self, seed: int, weights: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Float32 host arrays by stored path: the weights, by canonical path, where there are some; all else
        is drawn by seed and canonical path."""
        params = self.model.init(seed) if weights is None else self.model.stack(weights)
        return params | {
            _factor_path(path, name): self._init_factor(seed, path, name, spec)
            for path, factors in self.lora_factors.items()
            for name, spec, _ in factors
        }

    def merged_params(self, params: Params) -> Params:
        """The weights that the model computes with, by its stored paths."""
        scale = self.config.alpha / self.config.rank
        sums = {path: params[path] + scale * self._lora_update(path, params) for path in self.lora_factors}
        return {path: params[path] for path in self.model.stored_specs} | sums

    def loss(self, params: Params, *inputs: Any) -> tuple[Float[Array, ""], dict[str, Array]]:
        return self.model.loss(self.merged_params(params), *inputs)

    def update_after_step(self, params: Params, router_stats: Mapping[str, RouterStats]) -> Params:
        """What changes without a gradient changes where its kind learns; the rest keeps its bits."""
        after = self.model.update_after_step(params, router_stats)
        return {path: after[path] if self._is_trainable(path) else params[path] for path in params}

    def token_losses(self, params: Params, *inputs: Any) -> Float[Array, "B T"]:
        return self.model.token_losses(self.merged_params(params), *inputs)

    def build_optimizer(self, config: OptimizerConfig) -> optax.GradientTransformation:
        """Of what learns alone. Both factors decay, which takes their sum with W back towards W.

        `a` learns at the rate of a matrix with W's inputs, `b` of one whose input is of fixed size.
        """
        model = self.model
        relative = relative_width(model.spec.config, model.shape.width)
        decay = {path: spec.deviation > 0 for path, spec in model.stored_specs.items()}
        rates, matrices = model.learning_rate_scales, hidden_matrices(model)
        for path, factors in self.lora_factors.items():
            for name, spec, contracted in factors:
                factor_path = _factor_path(path, name)
                decay[factor_path], rates[factor_path] = True, learning_rate_scale(spec, relative)
                matrices[factor_path] = as_matrix(expert_matrix(spec), contracted, relative)
        return make_optimizer(config, *map(self._only_trainable, (decay, rates, matrices)))

    def _is_trainable(self, path: str) -> bool:
        return self.trainable_paths is None or path in self.trainable_paths

    def _only_trainable(self, by_path: Mapping[str, Any]) -> dict[str, Any]:
        return {path: value for path, value in by_path.items() if self._is_trainable(path)}

    def _init_factor(self, seed: int, path: str, name: str, spec: ParamSpec) -> np.ndarray:
        members = self.model.stacking.canonical_paths(path)
        arrays = [init_param(seed, _factor_path(member, name), spec) for member in members]
        return np.stack(arrays) if self.model.stacking.is_stacked(path) else arrays[0]

    def _lora_update(self, path: str, params: Params) -> Array:
        a, b = (_factor_path(path, name) for name in "ab")
        return lora_product(params[a], params[b], self.stored_specs[a].axes, self.stored_specs[b].axes)


def make_trainable(config: Config, model: Model) -> TrainableModel:
    """What of the model a config trains. Raises UserError where that is nothing, or cannot be told apart."""
    finetune = config.finetune
    if finetune.method is not FinetuneMethod.none and isinstance(model, ImageModel):
        raise UserError(
            f"finetune.method={finetune.method.value}: only decoders are fine-tuned, and model.kind=dit is "
            "none; leave it out"
        )
    if finetune.method is not FinetuneMethod.last_layers and finetune.trainable_layers is not None:
        raise UserError(
            f"finetune.trainable_layers={finetune.trainable_layers} is for finetune.method=last_layers alone, "
            f"and this is finetune.method={finetune.method.value}. Leave it out."
        )
    if finetune.method is FinetuneMethod.lora:
        factors = _make_factors(finetune, model)
        trainable_paths = frozenset(_factor_path(path, name) for path in factors for name in "ab")
        return TrainableModel(model, finetune, trainable_paths, factors)
    return TrainableModel(
        model,
        finetune,
        _last_layers(config, model) if finetune.method is FinetuneMethod.last_layers else None,
        {},
    )


def _make_factors(finetune: FinetuneConfig, model: Model) -> dict[str, LoraFactors]:
    """Beside every hidden matrix."""
    if finetune.rank < 1:
        raise UserError(f"finetune.rank={finetune.rank} gives factors of no size: give 1 or more, such as 8")
    if not finetune.alpha > 0:
        raise UserError(f"finetune.alpha={finetune.alpha}: such factors count for nothing; give one above 0")
    paths = hidden_matrices(model)
    if not paths:
        raise UserError("finetune.method=lora: the model has no hidden matrix; choose finetune.method=full")
    return {
        path: make_factors(model.param_specs[model.stacking.canonical_paths(path)[0]], finetune.rank)
        for path in paths
    }


def _last_layers(config: Config, model: Model) -> frozenset[str]:
    """The last layers, and what stands after them: all but the embedding and the layers before."""
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
    return frozenset(
        path for path in model.stored_specs if path != "embedding" and not path.startswith(frozen)
    )


def _factor_path(path: str, name: str) -> str:
    """Path of a factor of the matrix at `path`, stored or canonical."""
    return f"lora.{path}.{name}"


Params = dict[str, Array]


Leaf = TypeVar("Leaf")


def split_trainable(
    params: Mapping[str, Leaf], trainable_paths: Collection[str] | None
) -> tuple[dict[str, Leaf], dict[str, Leaf]]:
    """The parameters that learn (None: all), and those that rest."""
    if trainable_paths is None:
        return {**params}, {}
    trainable = {path: leaf for path, leaf in params.items() if path in trainable_paths}
    return trainable, {path: leaf for path, leaf in params.items() if path not in trainable_paths}
