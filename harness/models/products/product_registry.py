"""Registry of products: how `layers.project` multiplies by the weights of attention and feed-forward layers.

    @register_product("mine")
    def mine(x_NI: Array, weight_IO: Array, axes_IO: Axes) -> Array: ...

`weight_IO` is float32, and so is its gradient; y_NO has the dtype of x. `axes_IO` are the logical axes of the
weight for `matmul`. A product has a gradient rule of its own by `jax.custom_vjp`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from flax import nnx
from jax import Array

from harness.config.socket_registry import NoOptions, Registry
from harness.core.errors import UserError, did_you_mean

Axes = tuple[str | None, str | None]
Product = Callable[[Array, Array, Axes], Array]
Rule = TypeVar("Rule", bound=Product)

DTYPE = "dtype"
"""Name of the plain product, in the dtype of x."""


@dataclass(frozen=True)
class ProductEntry:
    """A registered product. It has no options: a product of other bits has another name."""

    name: str
    implementation: Product
    eight_bit: bool = False
    """True if chips compute it with factors of 8 bits, at the speed of those."""
    options: type = NoOptions


PRODUCTS: Registry[ProductEntry] = Registry("product", "compute.products")


def register_product(name: str, *, eight_bit: bool = False) -> Callable[[Rule], Rule]:
    """Return the decorator that registers a function as a product. It raises UserError if another function
    has the name."""

    def register(product: Rule) -> Rule:
        PRODUCTS.add(ProductEntry(name, product, eight_bit))
        return product

    return register


def use_product(module: nnx.Module, name: str, key: str) -> None:
    """Mark the weights of a module, so that `layers.project` multiplies by them with the product of this
    name. `key`: the config key that asks for it. Raises UserError for an unknown name, and for experts, whose
    grouped products have one form."""
    if name not in PRODUCTS.entries:
        raise UserError(
            f"{key}={name} is not registered: {did_you_mean(name, PRODUCTS.entries)}"
            " (List a module of your own in `imports`.)"
        )
    if name == DTYPE:
        return
    for _, node in nnx.iter_graph(module):
        if isinstance(node, nnx.Param):
            if "experts" in node.axes:
                raise UserError(
                    f"{key}={name}: the grouped products of experts are computed in compute.dtype alone."
                    " Leave it out, or choose a feed-forward layer without experts."
                )
            node.set_metadata(product=name)


def product_of(param: nnx.Param) -> ProductEntry:
    """Return the product that multiplies by a weight."""
    return PRODUCTS.entries[_metadata(param).get("product", DTYPE)]


def count_eight_bit_parameters(stored: nnx.State) -> int:
    """Return the number of values of the matrices that are multiplied in 8 bits."""
    params = [param for _, param in nnx.to_flat_state(stored) if product_of(param).eight_bit]
    return sum(math.prod(param.shape) for param in params if len(param.axes) > 1)


def _metadata(param: nnx.Param) -> dict[str, Any]:
    return param.get_metadata()
