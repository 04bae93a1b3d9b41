"""What a model is trained in: bytes of a parameter, and in what its products are multiplied."""

from __future__ import annotations

from dataclasses import dataclass

from harness.config.schema.run import Config, Precision
from harness.records.run.provenance import Facts


@dataclass(frozen=True)
class Recipe:
    """Bytes that one parameter costs, and in what its products are multiplied."""

    name: str
    weight: float
    gradient: float
    optimizer: float
    value: float
    """Of one activation."""
    precision: str
    fused: bool = True
    """Attention never writes its scores out (arXiv:2205.14135), and products overlap with collectives."""

    @property
    def state(self) -> float:
        """What stays from step to step."""
        return self.weight + self.optimizer


FLOAT32 = Recipe("float32", 4, 4, 8, 4, "float32")
"""What the harness trains with where nothing is told: AdamW, all in float32."""
MIXED = Recipe("mixed", 2, 4, 8, 2, "bf16")
"""bfloat16 weights and moments, float32 master weights and gradients (arXiv:2412.19437, section 3.3.2): 10
bytes a parameter from step to step."""
FP8 = Recipe("fp8", 2, 4, 8, 2, "fp8")
"""The same, with products in 8 bits."""
FP4 = Recipe("fp4", 2, 4, 8, 2, "fp4")
"""The same, with products in 4 bits."""


def recipe_of(config: Config, facts: Facts) -> Recipe:
    """Of one of our own runs: weights and gradients in float32 whatever the products are in, and what its
    optimizer keeps of each parameter, as `harness.worker.describe` counted it."""
    weights, gradients = 4 * facts.parameters, 4 * (facts.trainable or facts.parameters)
    kept = facts.state_bytes - weights - gradients
    narrow = config.compute.precision is Precision.bfloat16
    return Recipe(
        name=f"float32 state, {'bf16' if narrow else 'float32'} products",
        weight=4,
        gradient=gradients / facts.parameters,
        optimizer=kept / facts.parameters,
        value=2 if narrow else 4,
        precision="bf16" if narrow else "float32",
    )


def state_bytes(parameters: int, recipe: Recipe) -> float:
    """Of a whole run, all devices together: what stays from step to step, with gradients."""
    return parameters * (recipe.state + recipe.gradient)
