"""Functions of optax by their dotted names: `optax.adamw`, `optax.contrib.prodigy`, `optax.scale_by_yogi`.

A function that takes a learning rate is an optimizer. Any other that returns a transformation is a direction,
and learning rate and decay are ours.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import optax
import optax.contrib

from harness.core.errors import UserError, did_you_mean

OPTAX = "optax."
MASKS = ("mask", "weight_decay_mask")
"""Arguments that tell which parameters decay."""
RUN_ARGUMENTS = ("learning_rate", "weight_decay", *MASKS)
"""Arguments that the run gives: they are no options."""
_PLAIN = bool | int | float | str | None

Factory = Callable[..., optax.GradientTransformation]


def find_factory(name: str, key: str) -> Factory:
    """Return the function of a dotted name. Raises UserError; `key`: config node that holds the name."""
    place, _, function = name.rpartition(".")
    module = {"optax": optax, "optax.contrib": optax.contrib}.get(place)
    factory = getattr(module, function, None)
    if not inspect.isfunction(factory) or function.startswith("_"):
        hint = did_you_mean(
            name, [*_optimizers(optax, "optax"), *_optimizers(optax.contrib, "optax.contrib")]
        )
        raise UserError(f"{key}.name={name} is no function of optax: {hint}")
    return factory


def factory_options(name: str, factory: Factory) -> type:
    """Return a frozen dataclass of the arguments of a function that a config can give."""
    arguments = inspect.signature(factory).parameters.values()
    fields = [(a.name, *_field(a)) for a in arguments if a.name not in RUN_ARGUMENTS and _is_plain(a)]
    return dataclasses.make_dataclass(name.replace(".", "_"), fields, frozen=True, kw_only=True)


def call_factory(
    factory: Factory, arguments: Mapping[str, Any], decays: Mapping[str, bool]
) -> optax.GradientTransformationExtraArgs:
    """Call a function with those of its arguments that are options, and those that the run gives if it takes
    them. Its layout inside is the compiler's: optax contracts over split axes, which explicit layouts refuse.
    Updates and state leave in the layout that they came in. Raises UserError if it returns something else."""
    tracers = {name: value for name, value in arguments.items() if isinstance(value, jax.Array)}
    inner = _call(factory, arguments, decays)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        if jax.sharding.get_abstract_mesh().empty:
            return inner.update(updates, state, params, **extra)

        def run(updates: Any, state: Any, params: Any, extra: Any, tracers: Any) -> tuple[Any, Any]:
            return _call(factory, {**arguments, **tracers}, decays).update(updates, state, params, **extra)

        layouts = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding.spec, (updates, state))
        laid_out: Any = jax.sharding.auto_axes(run, out_sharding=layouts)
        return laid_out(updates, state, params, extra, tracers)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _call(
    factory: Factory, arguments: Mapping[str, Any], decays: Mapping[str, bool]
) -> optax.GradientTransformationExtraArgs:
    accepted = inspect.signature(factory).parameters
    # Without weight decay of its own, a mask of it has no use.
    masks = {name: dict(decays) for name in MASKS} if applies_decay(factory) else {}
    call_arguments = {name: value for name, value in (dict(arguments) | masks).items() if name in accepted}
    transformation = factory(**call_arguments)
    if not isinstance(transformation, optax.GradientTransformation):
        raise UserError(
            f"optimizer.name={factory.__module__}.{factory.__name__} returns no optimizer. Choose a function"
            " of optax that returns a GradientTransformation, such as optax.adamw."
        )
    return optax.with_extra_args_support(transformation)


def applies_decay(factory: Factory) -> bool:
    """Return whether a function takes weight decay."""
    return "weight_decay" in inspect.signature(factory).parameters


def has_rate(factory: Factory) -> bool:
    """Return whether a function takes a learning rate."""
    return "learning_rate" in inspect.signature(factory).parameters


def _optimizers(module: ModuleType, place: str) -> list[str]:
    functions = inspect.getmembers(module, inspect.isfunction)
    return [f"{place}.{name}" for name, function in functions if has_rate(function) and name[0] != "_"]


def _is_plain(argument: inspect.Parameter) -> bool:
    plain = (bool, int, float, str, type(None))
    default = argument.default
    items = default if isinstance(default, tuple) else (default,)
    return default is argument.empty or all(isinstance(item, plain) for item in items)


def _field(argument: inspect.Parameter) -> tuple[Any, Any]:
    """Return type and default of an option."""
    if argument.default is argument.empty:
        return _PLAIN, dataclasses.field()
    if isinstance(argument.default, tuple):
        return tuple[_PLAIN, ...], dataclasses.field(default=argument.default)
    kind = float if type(argument.default) is float else _PLAIN
    return kind, dataclasses.field(default=argument.default)
