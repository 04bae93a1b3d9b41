"""A whole model of a user's own: any NNX module with a loss, behind the interface of a model."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from harness.models.counting.jaxpr import count_function_flops
from harness.models.families.construction import Construction
from harness.models.model_api import Model, Params
from harness.models.model_spec import ModelSpec
from harness.models.parameters import Stacking
from harness.models.scaling.scaling_registry import Growth
from harness.models.step_clock import StepClock
from harness.parallel.sharding.axis_rules import partition_spec


@dataclass(frozen=True)
class OwnSpec(ModelSpec):
    """The config of a model of a user's own. It has no layers that the harness knows."""

    row: tuple[int, ...] = ()
    dtype: str = "int32"
    sequences: int = 1
    """Examples of a micro-batch."""

    @property
    def contexts(self) -> list:
        """No layer is known."""
        return []

    @property
    def executed_contexts(self) -> list:
        """No layer is known."""
        return []

    @functools.cached_property
    def growth(self) -> Growth:
        """No growth: no rule carries rates from size to size."""
        return Growth(width=1.0, layers=1)

    @property
    def kernels(self) -> list:
        """No kernel is chosen."""
        return []

    @property
    def display_name(self) -> str:
        """Name of the model in error messages."""
        return f"model '{self.config.kind}'"


class Unstacked(Stacking):
    """Storage of a model without a scan of ours: each parameter by its path."""

    def canonical_paths(self, stored: str) -> list[str]:
        """Return the path itself."""
        return [stored]

    def is_stacked(self, stored: str) -> bool:
        """Return False: no path holds several layers."""
        return False


@dataclass(frozen=True)
class OwnModel(Model):
    """A model of a user's own. Its FLOPs are counted in the jaxpr of its loss, and its parameters start by
    path (`families.construction`)."""

    spec: OwnSpec
    construction: Construction = field(kw_only=True)
    told_names: tuple[str, ...] = field(kw_only=True)
    """Names that its loss asks for beside the rows."""

    def with_vocabulary_multiple(self, multiple: int) -> OwnModel:
        """Return the model itself: it has no rows that are no token."""
        return self

    def with_reference_kernels(self) -> OwnModel:
        """Return the model itself: it chooses no kernel of ours."""
        return self

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one example as it is read."""
        return self.spec.row

    @property
    def row_dtype(self) -> str:
        """Dtype of the examples."""
        return self.spec.dtype

    @property
    def row_length(self) -> int:
        """Number of values along the first axis of one example."""
        return self.spec.row[0]

    @property
    def non_embedding_parameters(self) -> int:
        """Number of parameters without those that have an axis named `vocabulary`."""
        return sum(spec.size for spec in self.param_specs.values() if "vocabulary" not in spec.axes)

    @property
    def fp8_parameters(self) -> int:
        """Zero: products are the model's own."""
        return 0

    @property
    def flops_per_token(self) -> float:
        """FLOPs per trained token of the loss and its gradient, counted in their jaxpr."""
        return self._counted_flops

    @functools.cached_property
    def _counted_flops(self) -> float:
        flops = count_function_flops(jax.value_and_grad(self._mean_loss), *self.abstract_arguments)
        return flops / (self.spec.sequences * self.spec.sequence_length)

    @property
    def executed_flops_per_token(self) -> float:
        """FLOPs per trained token as executed: the same, since nobody says what its mathematics needs."""
        return self.flops_per_token

    @property
    def cache_bytes(self) -> float:
        """Zero: how it decodes is not known."""
        return 0.0

    @property
    def asks_clock(self) -> bool:
        """True if its loss asks for the place of a step."""
        return bool(self.told_names)

    @property
    def abstract_arguments(self) -> tuple[Any, Any]:
        """Abstract parameters, and rows of one micro-batch."""
        params = {path: jax.ShapeDtypeStruct(s.shape, jnp.float32) for path, s in self.stored_specs.items()}
        return params, jax.ShapeDtypeStruct((self.spec.sequences, *self.spec.row), self.spec.dtype)

    def token_losses(self, params: Params, rows_BR: Array) -> Float[Array, "B T"]:
        """Return the loss of each token. A loss per example counts for each of its tokens."""
        losses = self._losses(params, rows_BR, None)
        if losses.ndim == 2:
            return losses
        return jnp.broadcast_to(losses[:, None], (losses.shape[0], self.spec.sequence_length))

    def loss(
        self, params: Params, rows_BR: Array, z_loss: float, clock: StepClock | None = None
    ) -> tuple[Float[Array, ""], dict[str, Any]]:
        """Return the mean loss, and a dict with it. `z_loss` has no effect: it is refused."""
        loss = jnp.mean(self._losses(params, rows_BR, clock))
        return loss, {"loss": loss, "signals": {}}

    def _mean_loss(self, params: Params, rows_BR: Array) -> Array:
        return self.loss(params, rows_BR, 0.0, self.first_clock if self.told_names else None)[0]

    @property
    def first_clock(self) -> StepClock:
        """The place of a first step, to trace with."""
        return StepClock(jnp.int32(0), jnp.float32(0), jnp.uint32(0), jnp.int32(0))

    def _losses(self, params: Params, rows_BR: Array, clock: StepClock | None) -> Array:
        """Return the model's own loss. On a mesh its body is partitioned by the compiler: it says nothing of
        axes."""

        def apply(params: Params, rows_BR: Array, clock: StepClock | None) -> Array:
            return self.module(params).loss(rows_BR, **self.answers(clock))

        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty:
            return apply(params, rows_BR, clock)
        ndim = jax.eval_shape(apply, *self.abstract_arguments, clock).ndim
        spec = partition_spec("rows", *(None,) * (ndim - 1))
        automatic: Any = jax.sharding.auto_axes(apply, out_sharding=spec)
        return automatic(params, rows_BR, clock)

    def answers(self, clock: StepClock | None) -> dict[str, Any]:
        """Return what the loss asks for by name; without a place, that of a judged model: progress 1, and no
        step or key."""
        if clock is None:
            return {name: 1.0 if name == "progress" else None for name in self.told_names}
        return {name: clock.key() if name == "key" else getattr(clock, name) for name in self.told_names}

    def module(self, params: Params) -> Any:
        """Return the module with these parameters."""
        leaves = [params[path] for path in self.construction.params]
        state = jax.tree.unflatten(jax.tree.structure(self._abstract), leaves)
        return nnx.merge(self._graph, state)

    def activation_bytes(self, tokens: int) -> int:
        """Return the bytes of what the backward pass keeps of this many tokens, from its trace."""
        _, rows = self.abstract_arguments
        params = self.abstract_arguments[0]
        residuals = jax.eval_shape(lambda p, r: jax.vjp(lambda q: self._mean_loss(q, r), p)[1], params, rows)
        total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals))
        return int(total * tokens / (self.spec.sequences * self.spec.sequence_length))

    def _saved_values(self) -> tuple[float, float, float]:
        return 0.0, 0.0, 0.0
