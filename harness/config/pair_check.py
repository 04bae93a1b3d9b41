"""Check that the variants of a block differ only in the nodes that they declare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.config.renamed_keys import is_same_identity
from harness.config.run_identity import TAKEN_UP, VOLATILE, config_difference
from harness.config.schema.decision import TuneTarget
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.core.hashing import is_covered_by

TUNED_KEY = "optimizer.learning_rate"
"""Key that may differ between variants that were tuned over the same bracket."""

FREE_NODES = ("variant", "cluster", "engine", "resume", "rule", "gate", "tune", "profile", "tracker", "runs")
"""Nodes that name the variant or that training does not read. The mesh is not one of them."""


def undeclared_differences(left: Config, right: Config) -> dict[str, tuple[Any, Any]]:
    """Return `{key: (left, right)}` of the leaves that differ although neither variant declares them."""
    tuned = [TUNED_KEY] if left.tune.name is TuneTarget.lr else []
    allowed = [*FREE_NODES, *tuned, *left.variant.touches, *right.variant.touches]
    differing = config_difference(left, right)
    return {key: values for key, values in differing.items() if not is_covered_by(key, allowed)}


def check_block(configs: Sequence[Config], label: str) -> None:
    """Raise UserError if a variant differs from the first in an undeclared leaf; `label` names the block."""
    control = configs[0]
    for config in configs[1:]:
        if differences := undeclared_differences(control, config):
            raise UserError(
                f"{label}: '{config.variant.name}' and '{control.variant.name}' differ in "
                f"{describe_differences(differences)}, which neither declares. Declare the node in "
                "variant.touches, or make it equal."
            )


def identity_difference(stored: Config, config: Config, free: Sequence[str] = ()) -> str:
    """Describe the identity-relevant differences of two configs for one run directory; empty if none. `free`:
    further nodes that may differ."""
    allowed = [*VOLATILE, *TAKEN_UP, *free]
    differing = config_difference(stored, config).items()
    return describe_differences(
        {
            key: pair
            for key, pair in differing
            if not (is_covered_by(key, allowed) or is_same_identity(key, pair))
        }
    )


def describe_differences(differing: dict[str, tuple[Any, Any]], limit: int = 3) -> str:
    """Return `key (left against right)` for at most `limit` keys, and the number of the others."""
    phrases = [f"{key} ({a!r} against {b!r})" for key, (a, b) in list(differing.items())[:limit]]
    count = len(differing) - len(phrases)
    return ", ".join(phrases) + (f" and {count} more" if count > 0 else "")
