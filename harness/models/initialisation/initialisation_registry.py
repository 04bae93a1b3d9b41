"""Registry of initialisations: the rule that gives each parameter the distribution of its initial values.

    @register_initialisation("mine", Options)
    def mine(path: str, spec: ParamSpec, context: LayerContext, options: Options) -> Draw: ...

`spec.draw` is what the module declares: a weight's is normal with variance 1 / fan_in. `context` is that of
the layer, or the one after the last layer for what stands outside of the layers. Values depend only on seed,
path and draw, so variants that draw a parameter alike start it equal in every bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.config.socket_registry import Configured, NoOptions, Registry
from harness.core.errors import UserError
from harness.models.initialisation.draw import MAX_WHOLE, Draw
from harness.models.mechanism import LayerContext
from harness.models.parameters import ParamSpec

Rule = TypeVar("Rule", bound=Callable[..., Draw])


@dataclass(frozen=True)
class InitialisationEntry:
    """A registered initialisation."""

    name: str
    options: type
    implementation: Callable[[str, ParamSpec, LayerContext, Any], Draw]


class ConfiguredInitialisation(Configured[InitialisationEntry]):
    """An initialisation with its options."""

    def draw(self, path: str, spec: ParamSpec, context: LayerContext) -> Draw:
        """Return the draw of the parameter at this canonical path. Raises UserError if it cannot be made."""
        draw = self.entry.implementation(path, spec, context, self.options)
        if draw.is_whole and spec.size > MAX_WHOLE:
            raise UserError(
                f"model.initialisation.name={self.name} draws {path} of {spec.size:,} values as"
                f" '{draw.distribution}', which needs all of them at once, and {MAX_WHOLE:,} are the most."
                " Use a smaller scale, or another initialisation."
            )
        if draw.distribution == "orthogonal" and not spec.is_matrix:
            raise UserError(
                f"model.initialisation.name={self.name} draws {path} as 'orthogonal', but it is a vector."
                " Return spec.draw for what is no matrix (`spec.is_matrix`)."
            )
        return draw


INITIALISATIONS: Registry[InitialisationEntry] = Registry(
    "initialisation", "model.initialisation", ConfiguredInitialisation
)


def register_initialisation(name: str, options: type = NoOptions) -> Callable[[Rule], Rule]:
    """Return the decorator that registers a function as an initialisation. It raises UserError if another
    function has the name."""

    def register(rule: Rule) -> Rule:
        INITIALISATIONS.add(InitialisationEntry(name, options, rule))
        return rule

    return register


@register_initialisation("fan_in")
def fan_in(path: str, spec: ParamSpec, context: LayerContext, options: NoOptions) -> Draw:
    """Return what the module declares."""
    return spec.draw
