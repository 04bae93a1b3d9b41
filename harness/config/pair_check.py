"""A pair differs only in what it declares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.config.run_identity import VOLATILE, difference
from harness.config.schema.decision import TuneTarget
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.core.hashing import within

TUNED = "optimizer.learning_rate"
"""Differs between variants that were tuned, each over the same bracket."""

FREE = ("variant", "cluster", "engine", "resume", "rule", "gate", "tune", "profile", "runs")
"""Nodes that say which variant this is, or that no training reads. The mesh is not among them."""


def undeclared(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """The leaves in which two variants of a block differ although neither declares them."""
    tuned = [TUNED] if one.tune.name is TuneTarget.lr else []
    allowed = [*FREE, *tuned, *one.variant.touches, *other.variant.touches]
    differing = difference(one, other)
    return {key: values for key, values in differing.items() if not within(key, allowed)}


def check_block(configs: Sequence[Config], where: str) -> None:
    """Raises UserError at the first variant that differs from the first one in what it does not declare."""
    control = configs[0]
    for config in configs[1:]:
        if found := undeclared(control, config):
            raise UserError(
                f"{where}: '{config.variant.name}' and '{control.variant.name}' differ in {describe(found)}, "
                "which neither declares; declare the node in variant.touches, or make it equal"
            )


def identity_difference(stored: Config, wanted: Config) -> str:
    """In words, where two configs of one path differ in what makes a run this run."""
    differing = difference(stored, wanted)
    return describe({key: pair for key, pair in differing.items() if not within(key, list(VOLATILE))})


def describe(differing: dict[str, tuple[Any, Any]], most: int = 3) -> str:
    """`key (one against other)`, at most so many of them."""
    shown = [f"{key} ({one!r} against {other!r})" for key, (one, other) in list(differing.items())[:most]]
    rest = len(differing) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
