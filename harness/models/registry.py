"""Registry of mechanisms: attention, feed-forward and conditioning by name.

    @register_attention("mine", Options)
    class Mine(nnx.Module):
        def __init__(self, context: LayerContext, options: Options): ...
        def __call__(self, x_BTD, rotary): ...

A feed-forward layer takes only x [B, T, D] and returns y, or (y, RouterStats) if it has experts.

A config names a mechanism and never imports it. List the module that registers your own in `imports`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flax import nnx
from jax import Array

from harness import moved
from harness.config.schema import run
from harness.config.socket_registry import Configured, NoOptions, Registry
from harness.config.users_modules import find_modules
from harness.core.errors import UserError
from harness.models.counting.mechanisms import count_conditioning, count_layer_part, unsharded
from harness.models.kernels import KernelChoice
from harness.models.mechanism import LayerContext, MatmulFlops, RouterStats

Module = TypeVar("Module", bound=Callable[..., nnx.Module])


@dataclass(frozen=True)
class Mechanism:
    """Registered mechanism. All FLOPs are per token, for the forward pass through one layer."""

    name: str
    options: type
    implementation: Any
    model_flops: Callable[[LayerContext, Any], float] | None = None
    """FLOPs that the mathematics needs: masked keys and unused experts are not counted. None: those that are
    executed."""
    executed_flops: Callable[[LayerContext, Any], MatmulFlops] | None = None
    """FLOPs of the matrix products as they are written. None: counted in the traced module (`count`)."""
    cache_bytes: Callable[[LayerContext, Any, float], float] | None = None
    """Bytes that decoding caches in one layer for a sequence of full length, given the bytes per value. None:
    those of the keys and values of all heads."""
    count: Callable[[Any, LayerContext], MatmulFlops] = count_layer_part
    """Function that counts the products of a built module."""
    period: Callable[[Any], int] = lambda options: 1
    """Number of layers after which the mechanism's pattern repeats; a scan runs over whole periods."""
    inactive_parameters: Callable[[LayerContext, Any], int] = lambda context, options: 0
    """Number of parameters of one layer that a token does not use."""
    update_after_step: Callable[[Any, Mapping[str, Array], RouterStats], dict[str, Array]] | None = None
    """Function from a layer's parameters by name and the step's statistics to new values of the parameters
    that change without a gradient, applied after the optimizer step."""
    supports_sequence_parallel: Callable[[LayerContext, Any], bool] = lambda context, options: False
    """True if the module can work on one shard of a sequence (`rotary.sequence_shards`,
    `parallel.sharding.sequence_parallel`). If not, every device of the axis `context` gets the full sequence,
    and only its shard of the output is kept."""
    gives: tuple[str, ...] = ()
    """Names of the arrays [B, T, ...] that it gives to the mechanisms after it (`sockets.side_inputs`)."""
    off: Any = None
    """Options with which it is the default of its node, bit for bit, as is checked; None: no such options."""
    kernel: Callable[[LayerContext, Any], KernelChoice | None] = lambda context, options: None
    """Kernel of one layer; None if libraries have none for such a mechanism. Raises UserError if the config
    asks for one that lacks something."""


class ConfiguredModule(Configured[Mechanism]):
    """A mechanism with validated options: the meaning of a config's `{name, options}` node."""

    @property
    def period(self) -> int:
        """Number of layers after which the pattern repeats."""
        return self.entry.period(self.options)

    def build(self, context: LayerContext) -> Any:
        """Build the layer's module. Parameters are declared, not initialised."""
        return self.entry.implementation(context, self.options)

    def model_flops(self, context: LayerContext) -> float:
        """Return the forward FLOPs per token that the mathematics needs."""
        declared = self.entry.model_flops
        return declared(context, self.options) if declared else self.unreplicated_flops(context).total

    def executed_flops(self, context: LayerContext) -> MatmulFlops:
        """Return the executed FLOPs, summed over the devices that share a sequence: a mechanism without
        support for sequence parallelism is executed on each of them."""
        replicas = 1 if self.supports_sequence_parallel(context) else context.sequence_shards
        return self.unreplicated_flops(context) * replicas

    def unreplicated_flops(self, context: LayerContext) -> MatmulFlops:
        """Return the executed FLOPs, counting replicated work once."""
        declared = self.entry.executed_flops
        if declared:
            return declared(context, self.options)
        return self.counted_flops(context)

    def counted_flops(self, context: LayerContext) -> MatmulFlops:
        """Return the FLOPs of the products in the traced module, counting replicated work once."""
        return _count_products(self, unsharded(context, self.period))

    def supports_sequence_parallel(self, context: LayerContext) -> bool:
        """Return whether the module can work on one shard of a sequence."""
        return self.entry.supports_sequence_parallel(context, self.options)

    def kernel(self, context: LayerContext) -> KernelChoice | None:
        """Return the kernel of one layer; None if libraries have none for such a mechanism."""
        return self.entry.kernel(context, self.options)

    def cache_bytes(self, context: LayerContext, bytes_per_value: float) -> float:
        """Return the bytes that decoding caches in one layer for a sequence of full length."""
        declared, shape = self.entry.cache_bytes, context.shape
        if declared:
            return declared(context, self.options, bytes_per_value)
        return 2 * shape.heads * shape.head_width * context.sequence_length * bytes_per_value

    def inactive_parameters(self, context: LayerContext) -> int:
        """Return the number of parameters of one layer that a token does not use."""
        return self.entry.inactive_parameters(context, self.options)

    def update_after_step(self, params: Mapping[str, Array], signals: RouterStats) -> dict[str, Array]:
        """Return those of the layer's parameters, by name, that change after a step."""
        after_step = self.entry.update_after_step
        return {} if after_step is None else after_step(self.options, params, signals)


@functools.lru_cache(maxsize=1024)
def _count_products(mechanism: ConfiguredModule, context: LayerContext) -> MatmulFlops:
    module = mechanism.build(context)
    try:
        return mechanism.entry.count(module, context)
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(
            f"The products of '{mechanism.name}' in layer {context.layer} cannot be counted: "
            f"{reason.rstrip('.')}. Mend that, or give executed_flops at its registration."
        ) from error


ATTENTION: Registry[Mechanism] = Registry("attention", "model.attention", ConfiguredModule)
FEEDFORWARD: Registry[Mechanism] = Registry("feedforward", "model.feedforward", ConfiguredModule)
CONDITIONING: Registry[Mechanism] = Registry("conditioning", "model.conditioning", ConfiguredModule)


def register_mechanism(
    registry: Registry[Mechanism], name: str, options: type = NoOptions, **fields: Any
) -> Callable[[Module], Module]:
    """Return the decorator that registers a module, or a function that builds one, under `name`.

    `options` is its frozen dataclass; `fields` are those of Mechanism from `model_flops` on, which may all be
    left out. The decorator raises UserError if another module has the name.
    """
    for name_given in tuple(fields):
        fields[moved.current_name(name_given)] = fields.pop(name_given)

    def register(module: Module) -> Module:
        registry.add(Mechanism(name, options, module, **fields))
        return module

    return register


register_attention = functools.partial(register_mechanism, ATTENTION)
_NO_CACHE: dict[str, Any] = {"cache_bytes": lambda context, options, bytes_per_value: 0.0}
register_feedforward = functools.partial(register_mechanism, FEEDFORWARD, **_NO_CACHE)
register_conditioning = functools.partial(
    register_mechanism, CONDITIONING, **_NO_CACHE, count=count_conditioning
)


def import_modules(config: run.Config) -> None:
    """Import the modules listed in `config.imports`. Raises UserError for one that fails."""
    find_modules(config.imports)
    for name in config.imports:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise UserError(
                f"imports: '{name}' cannot be imported ({type(error).__name__}: {error})"
            ) from error


__getattr__ = moved.forward(__name__)  # names of version 0.1
