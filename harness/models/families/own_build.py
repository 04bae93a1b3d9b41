"""Construction of a model of a user's own from its class, and the refusal of what it cannot have."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.data import Packing
from harness.config.schema.run import ComputeConfig, Config
from harness.config.socket_registry import Configured
from harness.core.errors import UserError, did_you_mean
from harness.models.families.construction import Construction, construct
from harness.models.families.model_family import DataShape, ModelFamily
from harness.models.families.own_context import HEADER_WORDS, ModelContext, OwnDims, OwnImageDims
from harness.models.families.own_model import OwnModel, OwnSpec, Unstacked
from harness.models.initialisation.draw import Draw
from harness.models.layers import DTYPES
from harness.models.parameters import ParamSpec, sort_by_path
from harness.models.sockets.side_inputs import CLOCK_NAMES
from harness.parallel.sharding.axis_rules import LARGEST, LOGICAL_AXIS_RULES

LEVELS = ("bias", "scale")
"""Names of Flax for parameters that are no factors of products, whatever their shape."""


def build_own(family: Configured[ModelFamily], config: Config, data: DataShape) -> OwnModel:
    """Build a run's model from the user's class. Raises UserError for a config that it cannot have, and for
    a module that cannot be traced or that holds more than parameters."""
    _check_supported(config)
    key, model_class = f"model.kind={family.name}", family.entry.implementation
    context = ModelContext(
        parameters=config.scale.parameters,
        vocabulary=data.vocabulary,
        sequence_length=config.data.sequence_length,
        row=_row(config, data),
        image=data.image,
        dtype=DTYPES[config.compute.dtype],
    )
    try:
        construction = construct(lambda rngs: model_class(context, family.options, rngs))
    except UserError:
        raise
    except Exception as error:
        raise untraceable(key, "constructor", error) from error
    _check_state(key, construction)
    told_names = tuple(inspect.signature(model_class.loss).parameters)[2:]
    for name in told_names:
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
    specs = {
        path: _param_spec(path, param, _axes(key, path, param, config.mesh.fsdp), construction.draws[path])
        for path, param in construction.params.items()
    }
    graph, abstract = construction.graph, construction.abstract
    by_path = sort_by_path(specs)
    parts: tuple[Any, ...] = (spec, config.compute, Unstacked(), by_path, by_path, graph, abstract)
    return OwnModel(*parts, construction=construction, told_names=told_names)


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
        return (HEADER_WORDS + height * width * channels,)
    return (config.data.sequence_length + 1,)


def _check_state(key: str, construction: Construction) -> None:
    """Raise UserError for a module without a parameter, or with state that a run would not keep."""
    for path, kind in construction.other_state.items():
        way = "Keep nnx.Param alone"
        if kind == "jax.Array":
            way = "Make constants with numpy, and parameters as nnx.Param"
        elif kind.lstrip("_").startswith(("Rng", "Key")):
            way = "Build its layer with rngs=False or keep_rngs=False, and ask for `key` in the loss"
        raise UserError(f"{key}: {path} is of type {kind.lstrip('_')}, which no run keeps. {way}.")
    if not construction.draws:
        raise UserError(f"{key}: the model has no parameter. Give its layers nnx.Param.")
    for path, param in construction.params.items():
        if param.dtype != jnp.float32:
            raise UserError(
                f"{key}: {path} is {param.dtype}, but parameters are float32. Set param_dtype=jnp.float32,"
                " and dtype=context.dtype for the products."
            )


def _param_spec(path: str, param: Any, axes: tuple[str | None, ...], draw: Draw) -> ParamSpec:
    """Return the spec of a parameter. All of two axes or more are weights, which decay, but those that Flax
    calls bias or scale."""
    is_weight = len(param.shape) > 1 and path.rpartition(".")[2] not in LEVELS
    fan_in = math.prod(param.shape[:-1]) if is_weight else 0
    return ParamSpec(param.shape, axes, draw, fan_in, decays=is_weight)


def _axes(key: str, path: str, param: Any, fsdp: int) -> tuple[str | None, ...]:
    """Return the logical axes of a parameter: those that it names, else its largest one that divides over
    fsdp. Raises UserError for an unknown name."""
    shape = param.shape
    axis_names = param.get_metadata().get("out_sharding")
    if axis_names is None:
        sizes = [size if fsdp > 1 and size % fsdp == 0 else 0 for size in shape]
        largest = sizes.index(max(sizes)) if any(sizes) else None
        return tuple(LARGEST if axis == largest else None for axis in range(len(shape)))
    for name in axis_names:
        if name is not None and name not in LOGICAL_AXIS_RULES:
            raise UserError(
                f"{key}: {path} has an axis named {name!r}: {did_you_mean(str(name), LOGICAL_AXIS_RULES)}"
            )
    return (*axis_names, *(None,) * (len(shape) - len(axis_names)))


def _check_supported(config: Config) -> None:
    """Raise UserError for keys that only a model of known layers has."""
    default, model = Config(), config.model
    own_fields = {"kind": model.kind, "options": model.options, "match": model.match}
    if replace(default.model, **own_fields) != model:
        key = next(
            name for name, value in vars(model).items()
            if name not in own_fields and value != getattr(default.model, name)
        )  # fmt: skip
        raise UserError(
            f"model.{key} is for decoders; a model of your own (model.kind={model.kind}) reads model.options"
            " alone. Leave it out."
        )
    if config.data.packing is Packing.best_fit:
        raise UserError(
            f"data.packing=best_fit leaves places of rows empty, which a model of your own (model.kind="
            f"{model.kind}) may not know. Set data.packing=concatenate."
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
