"""A whole model of a user's own: any NNX module with a loss, behind the interface of a model."""

from __future__ import annotations

import functools
import inspect
import math
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from harness.config.registry import Configured
from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import ComputeConfig, Config
from harness.core.errors import UserError, did_you_mean
from harness.models.counting.jaxpr import count_function_flops
from harness.models.families.construction import Construction, construct
from harness.models.families.model_family import DataShape, ModelFamily
from harness.models.families.own_context import ModelContext, OwnDims, OwnImageDims
from harness.models.layers import DTYPES
from harness.models.model_api import Model, Params
from harness.models.model_spec import ModelSpec
from harness.models.parameters import ParamSpec, Stacking, sort_by_path
from harness.models.scaling.registry import Growth
from harness.models.sockets.told import CLOCK_NAMES
from harness.models.step_clock import StepClock
from harness.parallel.sharding.axis_rules import LARGEST, LOGICAL_AXIS_RULES, partition_spec


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


class _Unstacked(Stacking):
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
    told: tuple[str, ...] = field(kw_only=True)
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
        """The same: what the model executes is what its mathematics needs."""
        return self.flops_per_token

    @property
    def cache_bytes(self) -> float:
        """Zero: how it decodes is not known."""
        return 0.0

    @property
    def asks_clock(self) -> bool:
        """Whether its loss asks for the place of a step."""
        return bool(self.told)

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
        return self.loss(params, rows_BR, 0.0, self.abstract_clock)[0]

    @property
    def abstract_clock(self) -> StepClock | None:
        """A place of a step to trace with; None if the loss asks for none."""
        if not self.told:
            return None
        return StepClock(jnp.int32(0), jnp.float32(0), jnp.uint32(0), jnp.int32(0))

    def _losses(self, params: Params, rows_BR: Array, clock: StepClock | None) -> Array:
        """Return the model's own loss. On a mesh its body is partitioned by the compiler: it says nothing of
        axes."""

        def apply(params: Params, rows_BR: Array, clock: StepClock | None) -> Array:
            return self.raw_loss(self.module(params), rows_BR, clock)

        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty:
            return apply(params, rows_BR, clock)
        ndim = jax.eval_shape(apply, *self.abstract_arguments, clock).ndim
        spec = partition_spec("rows", *(None,) * (ndim - 1))
        automatic: Any = jax.sharding.auto_axes(apply, out_sharding=spec)
        return automatic(params, rows_BR, clock)

    def raw_loss(self, module: Any, rows_BR: Array, clock: StepClock | None) -> Array:
        """Return the loss of a module, told what it asks for."""
        return module.loss(rows_BR, **{name: _answer(name, clock) for name in self.told})

    def module(self, params: Params) -> Any:
        """Return the module with these parameters."""
        leaves = [params[path] for path in self.construction.params]
        state = jax.tree.unflatten(jax.tree.structure(self._abstract), leaves)
        return nnx.merge(self._graph, state)

    def activation_bytes(self, tokens: int) -> int:
        """Return the bytes of what the backward pass keeps of this many tokens, from its trace."""
        _, rows = self.abstract_arguments
        params = self.abstract_arguments[0]
        kept = jax.eval_shape(lambda p, r: jax.vjp(lambda q: self._mean_loss(q, r), p)[1], params, rows)
        total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
        return int(total * tokens / (self.spec.sequences * self.spec.sequence_length))

    def _saved_values(self) -> tuple[float, float, float]:
        return 0.0, 0.0, 0.0


def _answer(name: str, clock: StepClock | None) -> Any:
    """Return what a loss asks for; outside of training progress is 1, step and key are None."""
    if clock is None:
        return 1.0 if name == "progress" else None
    return clock.key() if name == "key" else getattr(clock, name)


def build_own(configured: Configured[ModelFamily], config: Config, data: DataShape) -> OwnModel:
    """Build a run's model from the user's class. Raises UserError for a config that it cannot have, and for
    a module that cannot be traced or that holds more than parameters."""
    _check_supported(config)
    key, model_class = f"model.kind={configured.name}", configured.entry.implementation
    context = ModelContext(
        parameters=config.scale.parameters,
        vocabulary=data.vocabulary,
        sequence_length=config.data.sequence_length,
        row=_row(config, data),
        image=data.image,
        dtype=DTYPES[config.compute.dtype],
    )
    try:
        construction = construct(lambda rngs: model_class(context, configured.options, rngs))
    except UserError:
        raise
    except Exception as error:
        raise untraceable(key, "constructor", error) from error
    _check_state(key, construction)
    told = tuple(inspect.signature(model_class.loss).parameters)[2:]
    for name in told:
        if name not in CLOCK_NAMES:
            raise UserError(f"{key}: its loss asks for {name}: {did_you_mean(name, CLOCK_NAMES)}")
    dims: Any = OwnDims(data.vocabulary)
    if data.image:
        height, breadth, channels = data.image
        dims = OwnImageDims(data.vocabulary, height=height, breadth=breadth, channels=channels)
    spec = OwnSpec(
        config.model,
        dims,
        config.data.sequence_length,
        row=context.row,
        dtype=data.dtype,
        sequences=config.scale.batch // config.compute.microbatches,
    )
    fsdp = config.mesh.fsdp
    specs = {
        path: ParamSpec(
            param.shape,
            _axes(key, path, param, fsdp),
            construction.draws[path],
            fan_in=math.prod(param.shape[:-1]) if len(param.shape) > 1 else 0,
            decays=len(param.shape) > 1,
        )
        for path, param in construction.params.items()
    }
    graph, abstract = construction.graph, construction.abstract
    by_path = sort_by_path(specs)
    parts: tuple[Any, ...] = (spec, config.compute, _Unstacked(), by_path, by_path, graph, abstract)
    return OwnModel(*parts, construction=construction, told=told)


def untraceable(key: str, part: str, error: Exception) -> UserError:
    """Return the error of a part of a model that JAX cannot trace."""
    first = (str(error).splitlines() or [""])[0][:200]
    return UserError(
        f"{key}: its {part} cannot be traced ({type(error).__name__}: {first}). Compute with jax.numpy on"
        " traced arrays, and draw only from rngs."
    )


def _row(config: Config, data: DataShape) -> tuple[int, ...]:
    if data.row is not None:
        return data.row
    if data.image is not None:
        height, width, channels = data.image
        return (4 + height * width * channels,)
    return (config.data.sequence_length + 1,)


def _check_state(key: str, construction: Construction) -> None:
    """Raise UserError for a module without a parameter, or with state that a run would not keep."""
    if construction.others:
        path, kind = next(iter(construction.others.items()))
        ways = {
            "Array": "make constants with numpy, and parameters as nnx.Param",
            "Rngs": "ask for `key` in the loss instead",
        }
        is_random = kind.startswith(("Rng", "_Key"))
        way = ways["Array"] if kind == "jax.Array" else ways["Rngs"] if is_random else "keep nnx.Param alone"
        raise UserError(f"{key}: {path} is of type {kind.lstrip('_')}, which no run keeps: {way}.")
    if not construction.draws:
        raise UserError(f"{key}: the model has no parameter. Give its layers nnx.Param.")
    for path, param in construction.params.items():
        if param.dtype != jnp.float32:
            raise UserError(
                f"{key}: {path} is {param.dtype}, but parameters are float32. Set param_dtype=jnp.float32,"
                " and dtype=context.dtype for the products."
            )


def _axes(key: str, path: str, param: Any, fsdp: int) -> tuple[str | None, ...]:
    """Return the logical axes of a parameter: those that it names, else its largest one that divides over
    fsdp. Raises UserError for an unknown name."""
    shape = param.shape
    named = param.get_metadata().get("out_sharding")
    if named is None:
        sizes = [size if fsdp > 1 and size % fsdp == 0 else 0 for size in shape]
        largest = sizes.index(max(sizes)) if any(sizes) else None
        return tuple(LARGEST if axis == largest else None for axis in range(len(shape)))
    for name in named:
        if name is not None and name not in LOGICAL_AXIS_RULES:
            raise UserError(
                f"{key}: {path} has an axis named {name!r}: {did_you_mean(str(name), LOGICAL_AXIS_RULES)}"
            )
    return (*named, *(None,) * (len(shape) - len(named)))


def _check_supported(config: Config) -> None:
    """Raise UserError for keys that only a model of known layers has."""
    default, model = Config(), config.model
    kept = {"kind": model.kind, "options": model.options, "match": model.match}
    if replace(default.model, **kept) != model:
        key = next(
            name for name, value in vars(model).items()
            if name not in kept and value != getattr(default.model, name)
        )  # fmt: skip
        raise UserError(
            f"model.{key} is for decoders; a model of your own (model.kind={model.kind}) reads model.options"
            " alone. Leave it out."
        )
    plain = ComputeConfig(dtype=config.compute.dtype, microbatches=config.compute.microbatches)
    for node, value, expected in (
        ("compute", config.compute, plain),
        ("loss", config.loss, default.loss),
        ("objective", config.objective, default.objective),
        ("mesh", config.mesh, MeshConfig(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)),
    ):
        if value != expected:
            raise UserError(
                f"{node}={_difference(value, expected)} cannot be known to hold for a model of your own"
                f" (model.kind={model.kind}): its loss says how it is computed. Leave it out."
            )


def _difference(value: Any, expected: Any) -> str:
    changed = [name for name, item in vars(value).items() if item != getattr(expected, name)]
    return f"{{{', '.join(f'{name}: {getattr(value, name)}' for name in changed)}}}"
