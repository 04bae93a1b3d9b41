"""Sizes: the word `size=` of the command line, ladders of sizes, and what a recipe in conf/scale/ is for.

A size is a scale with a whole recipe: both words choose from one group, conf/scale/, and records say scale.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.config.schema.run import Config
from harness.core.errors import UserError

SIZES: Mapping[str, int] = {
    "124m": 124_000_000,
    "350m": 350_000_000,
    "1b": 1_000_000_000,
    "3b": 3_000_000_000,
    "8b": 8_000_000_000,
}
"""Parameters of each size, without embeddings."""
LADDERS: Mapping[str, str] = {"ladder": "124m,350m,1b,3b"}
"""Sizes by the word for all of them."""
LARGEST_RATE = 1.2e-2
"""Learning rate of the demo's sizes, tuned there. The law was fitted from 60 M parameters up, and gives more
below 2 M."""
FOREIGN_FACTOR = 100
"""Parameters over those of a recipe from which on its other values are refused."""


def as_scale(override: str) -> str:
    """Return `scale=124m` for `size=124m`, and the sizes of a ladder for its word; any other override as it
    is."""
    key, equals, value = override.partition("=")
    if not equals or key not in ("size", "scale"):
        return override
    return f"scale={','.join(LADDERS.get(name, name) for name in value.split(','))}"


def step_law_rate(parameters: int, tokens: int) -> float:
    """Return the peak learning rate of AdamW for a number of non-embedding parameters and of training tokens:
    1.79 N^-0.713 D^0.307, to two digits (Step Law, arXiv:2503.04715, equation 1), at most LARGEST_RATE."""
    return min(LARGEST_RATE, float(f"{1.79 * parameters**-0.713 * tokens**0.307:.2g}"))


def step_law_batch(tokens: int) -> float:
    """Return the tokens of a step for a number of training tokens: 0.58 D^0.571 (Step Law, as above)."""
    return 0.58 * tokens**0.571


def learning_rate_of(scale: Mapping[str, Any]) -> float:
    """Return the learning rate of a scale's recipe; the Step Law's without one."""
    rate = scale["learning_rate"]
    return step_law_rate(scale["parameters"], scale["tokens"]) if rate is None else rate


def nearest_size(parameters: int) -> str:
    """Return the size whose parameters are nearest, by ratio."""
    return min(SIZES, key=lambda name: abs(math.log(SIZES[name] / parameters)))


def check_recipe(config: Config, folder: Path) -> None:
    """Raise UserError if the parameters are not those that the recipe in `folder` is for, by far."""
    scale, recipe = config.scale, _recipe_parameters(folder / f"{config.scale.name}.yaml")
    if recipe is None or scale.parameters < FOREIGN_FACTOR * recipe:
        return
    raise UserError(
        f"scale.parameters={scale.parameters}: the scale {scale.name} is a recipe for {recipe:,} parameters, "
        f"and its {scale.tokens:,} tokens, sequences of {config.data.sequence_length} and learning rate "
        f"would stay. Choose size={nearest_size(scale.parameters)}, or write a recipe of your own, "
        "conf/scale/NAME.yaml."
    )


@functools.cache
def _recipe_parameters(file: Path) -> int | None:
    """Return the parameters that a file of conf/scale/ sets; None without such a file."""
    if not file.is_file():
        return None
    content = yaml.safe_load(file.read_text())
    return content.get("scale", content).get("parameters")
