"""A pair differs only in what it declares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.config.run_identity import VOLATILE, config_difference
from harness.config.schema.decision import TuneTarget
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.core.hashing import is_covered_by

TUNED_KEY = "optimizer.learning_rate"
"""Differs between variants that were tuned, each over the same bracket."""

FREE_NODES = ("variant", "cluster", "engine", "resume", "rule", "gate", "tune", "profile", "runs")
"""Nodes that say which variant this is, or that no training reads. The mesh is not among them."""


def undeclared_differences(left: Config, right: Config) -> dict[str, tuple[Any, Any]]:
    """The leaves in which two variants of a block differ although neither declares them."""
    tuned = [TUNED_KEY] if left.tune.name is TuneTarget.lr else []
    allowed = [*FREE_NODES, *tuned, *left.variant.touches, *right.variant.touches]
    differing = config_difference(left, right)
    return {key: values for key, values in differing.items() if not is_covered_by(key, allowed)}


def check_block(configs: Sequence[Config], label: str) -> None:
    """Raises UserError at the first variant that differs from the first one in what it does not declare."""
    control = configs[0]
    for config in configs[1:]:
        if differences := undeclared_differences(control, config):
            raise UserError(
                f"{label}: '{config.variant.name}' and '{control.variant.name}' differ in {describe_differences(differences)}, "
                "which neither declares; declare the node in variant.touches, or make it equal"
            )


def identity_difference(stored: Config, requested: Config) -> str:
    """In words, where two configs of one path differ in what makes a run this run."""
    differing = config_difference(stored, requested)
    return describe_differences(
        {key: pair for key, pair in differing.items() if not is_covered_by(key, list(VOLATILE))}
    )


def describe_differences(differing: dict[str, tuple[Any, Any]], limit: int = 3) -> str:
    """`key (one against other)`, at most so many of them."""
    phrases = [
        f"{key} ({left!r} against {right!r})" for key, (left, right) in list(differing.items())[:limit]
    ]
    omitted = len(differing) - len(phrases)
    return ", ".join(phrases) + (f" and {omitted} more" if omitted > 0 else "")
