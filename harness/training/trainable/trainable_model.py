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

from harness.config.schema.run import Config, FinetuneConfig, Layers, Method, OptimizerConfig
from harness.core.errors import UserError
from harness.models import ImageModel, Model, ParamSpec, Signals, flops
from harness.models.mup import one_expert, rate_scale, relative_width
from harness.models.parameters import draw
from harness.training.optimizers.muon import matrices_of, matrix_of
from harness.training.optimizers.optimizer import make_optimizer
from harness.training.trainable.lora import Factors, factors_of, low_rank


@dataclass(frozen=True)
class Learner:
    """A model and which of its parameters learn; `loss` and `token_losses` are called as the model's are."""

    model: Model
    config: FinetuneConfig
    learning: frozenset[str] | None
    """Stored paths of what learns; None: all of the model."""
    factors: Mapping[str, Factors]
    """By stored path of the matrix that they stand beside; empty but for LoRA."""

    @functools.cached_property
    def stored(self) -> dict[str, ParamSpec]:
        """Specs of all that a state holds: the model's by stored path, `lora.<path>.a`, `lora.<path>.b`."""
        own = {
            _factor(path, name): self.model.stacking.stored(path, spec)
            for path, each in self.factors.items()
            for name, spec, _ in each
        }
        return self.model.stored | own

    @property
    def trainable(self) -> int:
        """Parameters that learn."""
        return sum(spec.size for path, spec in self.stored.items() if self._learns(path))

    @property
    def flops_per_token(self) -> float:
        """Model FLOPs of one trained token: backward goes no further than what learns asks for."""
        blueprint = self.model.blueprint
        if self.factors:
            return flops.model_flops_adapted(blueprint, self._passed)
        if self.learning is not None:
            return flops.model_flops_above(blueprint, self.config.layers or 0)
        return self.model.flops_per_token

    @property
    def _passed(self) -> float:
        """Parameters of factors that one token passes through: of experts', the share that is not idle."""
        of_experts = [spec.size for spec in self.model.specs.values() if spec.axes[0] == "experts"]
        idle = self.model.non_embedding - self.model.active_parameters
        used = 1 - idle / sum(of_experts) if of_experts else 1.0
        own = (spec for path, spec in self.stored.items() if self._learns(path))
        return sum(spec.size * (used if "experts" in spec.axes else 1) for spec in own)

    def executed_flops_per_token(self, sequences: int) -> float:
        """FLOPs of one trained token as the code multiplies them, for a gradient over so many sequences: the
        factors of LoRA are multiplied once for all of them."""
        if self.learning is None:
            return self.model.executed_flops_per_token
        length = self.model.blueprint.sequence_length
        shapes = {path: jax.ShapeDtypeStruct(spec.shape, jnp.float32) for path, spec in self.stored.items()}
        moving, resting = split(shapes, self.learning)
        tokens = jax.ShapeDtypeStruct((sequences, length + 1), jnp.int32)

        def loss(moving: Params, resting: Params, tokens_BT1: Array) -> Array:
            return self.loss(moving | resting, tokens_BT1, 0.0)[0]

        return flops.count_jaxpr(jax.value_and_grad(loss), moving, resting, tokens) / (sequences * length)

    def start(self, seed: int, weights: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Float32 host arrays by stored path: the weights, by canonical path, where there are some; all else
        is drawn by seed and canonical path."""
        params = self.model.init(seed) if weights is None else self.model.stack(weights)
        return params | {
            _factor(path, name): self._drawn(seed, path, name, spec)
            for path, each in self.factors.items()
            for name, spec, _ in each
        }

    def merged(self, params: Params) -> Params:
        """The weights that the model computes with, by its stored paths."""
        scale = self.config.alpha / self.config.rank
        sums = {path: params[path] + scale * self._product(path, params) for path in self.factors}
        return {path: params[path] for path in self.model.stored} | sums

    def loss(self, params: Params, *inputs: Any) -> tuple[Float[Array, ""], dict[str, Array]]:
        return self.model.loss(self.merged(params), *inputs)

    def after_step(self, params: Params, signals: Mapping[str, Signals]) -> Params:
        """What changes without a gradient changes where its kind learns; the rest keeps its bits."""
        after = self.model.after_step(params, signals)
        return {path: after[path] if self._learns(path) else params[path] for path in params}

    def token_losses(self, params: Params, *inputs: Any) -> Float[Array, "B T"]:
        return self.model.token_losses(self.merged(params), *inputs)

    def optimizer(self, config: OptimizerConfig) -> optax.GradientTransformation:
        """Of what learns alone. Both factors decay, which takes their sum with W back towards W.

        `a` learns at the rate of a matrix with W's inputs, `b` of one whose input is of fixed size.
        """
        model = self.model
        relative = relative_width(model.blueprint.config, model.shape.width)
        decay = {path: spec.deviation > 0 for path, spec in model.stored.items()}
        rates, matrices = model.learning_rate_scales, matrices_of(model)
        for path, each in self.factors.items():
            for name, spec, contracted in each:
                own = _factor(path, name)
                decay[own], rates[own] = True, rate_scale(spec, relative)
                matrices[own] = matrix_of(one_expert(spec), contracted, relative)
        return make_optimizer(config, *map(self._of_learning, (decay, rates, matrices)))

    def _learns(self, path: str) -> bool:
        return self.learning is None or path in self.learning

    def _of_learning(self, by_path: Mapping[str, Any]) -> dict[str, Any]:
        return {path: value for path, value in by_path.items() if self._learns(path)}

    def _drawn(self, seed: int, path: str, name: str, spec: ParamSpec) -> np.ndarray:
        members = self.model.stacking.members(path)
        drawn = [draw(seed, _factor(member, name), spec) for member in members]
        return np.stack(drawn) if self.model.stacking.is_stacked(path) else drawn[0]

    def _product(self, path: str, params: Params) -> Array:
        a, b = (_factor(path, name) for name in "ab")
        return low_rank(params[a], params[b], self.stored[a].axes, self.stored[b].axes)


def learner_of(config: Config, model: Model) -> Learner:
    """What of the model a config trains. Raises UserError where that is nothing, or cannot be told apart."""
    tuned = config.finetune
    if tuned.method is not Method.none and isinstance(model, ImageModel):
        raise UserError(
            f"finetune.method={tuned.method.value}: only decoders are fine-tuned, and model.kind=dit is "
            "none; leave it out"
        )
    if tuned.method is not Method.frozen and tuned.layers is not None:
        raise UserError(
            f"finetune.layers={tuned.layers}: only finetune.method=frozen counts layers, this is "
            f"{tuned.method.value}; leave it out"
        )
    if tuned.method is Method.lora:
        factors = _factors(tuned, model)
        learning = frozenset(_factor(path, name) for path in factors for name in "ab")
        return Learner(model, tuned, learning, factors)
    return Learner(model, tuned, _last(config, model) if tuned.method is Method.frozen else None, {})


def _factors(tuned: FinetuneConfig, model: Model) -> dict[str, Factors]:
    """Beside every hidden matrix."""
    if tuned.rank < 1:
        raise UserError(f"finetune.rank={tuned.rank} gives factors of no size: give 1 or more, such as 8")
    if not tuned.alpha > 0:
        raise UserError(f"finetune.alpha={tuned.alpha}: such factors count for nothing; give one above 0")
    paths = matrices_of(model)
    if not paths:
        raise UserError("finetune.method=lora: the model has no hidden matrix; choose finetune.method=full")
    return {path: factors_of(model.specs[model.stacking.members(path)[0]], tuned.rank) for path in paths}


def _last(config: Config, model: Model) -> frozenset[str]:
    """The last layers, and what stands after them: all but the embedding and the layers before."""
    layers, total = config.finetune.layers, model.shape.layers
    if layers is None or not 1 <= layers <= total:
        raise UserError(
            f"finetune.layers={'null' if layers is None else layers}: say how many of the last layers learn, "
            f"1 to {total}, which is all that the model has"
        )
    if config.compute.layers is Layers.scanned:
        raise UserError(
            "finetune.method=frozen: scanned layers are one parameter, and learn together or not at all; "
            "set compute.layers=unrolled"
        )
    resting = tuple(f"layers.{layer}." for layer in range(total - layers))
    return frozenset(path for path in model.stored if path != "embedding" and not path.startswith(resting))


def _factor(path: str, name: str) -> str:
    """Path of a factor of the matrix at `path`, stored or canonical."""
    return f"lora.{path}.{name}"


Params = dict[str, Array]


Leaf = TypeVar("Leaf")


def split(
    params: Mapping[str, Leaf], learning: Collection[str] | None
) -> tuple[dict[str, Leaf], dict[str, Leaf]]:
    """The parameters that learn (None: all), and those that rest."""
    if learning is None:
        return {**params}, {}
    moving = {path: leaf for path, leaf in params.items() if path in learning}
    return moving, {path: leaf for path, leaf in params.items() if path not in learning}
