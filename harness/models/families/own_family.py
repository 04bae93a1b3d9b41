"""Registration of a whole model of a user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flax import nnx

from harness.config.socket_registry import NoOptions
from harness.models.families.model_family import FAMILIES, ModelFamily
from harness.models.families.own_build import build_own
from harness.models.families.own_checks import check_own

Module = TypeVar("Module", bound=type[nnx.Module])


def register_model(
    name: str,
    options: type = NoOptions,
    *,
    data: tuple[str, ...],
    loss_unit: str,
    causal: bool = True,
) -> Callable[[Module], Module]:
    """Return the decorator that registers a module class as a model family under `name` (`model.kind`).

    `data`: kinds of data that it reads, such as `("text",)`. `loss_unit`: unit of its loss, for reports, such
    as `nats a token`. `causal`: its loss at a token of text reads no later token, which is checked.
    """

    def register(module: Module) -> Module:
        FAMILIES.add(
            ModelFamily(
                name,
                options,
                module,
                build_own,
                data=data,
                loss_unit=loss_unit,
                check=lambda model: check_own(model, causal=causal and data == ("text",)),
                noun=f"'{name}' model",
            )
        )
        return module

    return register
