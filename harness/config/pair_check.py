"""A pair differs only in what it declares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.config.run_identity import VOLATILE, config_difference
from harness.config.schema.decision import TuneTarget
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.core.hashing import is_covered_by

TUNED = "optimizer.learning_rate"
"""Differs between variants that were tuned, each over the same bracket."""

FREE = ("variant", "cluster", "engine", "resume", "rule", "gate", "tune", "profile", "runs")
"""Nodes that say which variant this is, or that no training reads. The mesh is not among them."""


def undeclared_differences(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """The leaves in which two variants of a block differ although neither declares them."""
    tuned = [TUNED] if one.tune.name is TuneTarget.lr else []
    allowed = [*FREE, *tuned, *one.variant.touches, *other.variant.touches]
    differing = config_difference(one, other)
    return {key: values for key, values in differing.items() if not is_covered_by(key, allowed)}


def check_block(configs: Sequence[Config], where: str) -> None:
    """Raises UserError at the first variant that differs from the first one in what it does not declare."""
    control = configs[0]
    for config in configs[1:]:
        if found := undeclared_differences(control, config):
            raise UserError(
                f"{where}: '{config.variant.name}' and '{control.variant.name}' differ in {describe_differences(found)}, "
                "which neither declares; declare the node in variant.touches, or make it equal"
            )


def identity_difference(stored: Config, wanted: Config) -> str:
    """In words, where two configs of one path differ in what makes a run this run."""
    differing = config_difference(stored, wanted)
    return describe_differences(
        {key: pair for key, pair in differing.items() if not is_covered_by(key, list(VOLATILE))}
    )


def describe_differences(differing: dict[str, tuple[Any, Any]], most: int = 3) -> str:
    """`key (one against other)`, at most so many of them."""
    shown = [f"{key} ({one!r} against {other!r})" for key, (one, other) in list(differing.items())[:most]]
    rest = len(differing) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
