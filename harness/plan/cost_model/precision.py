"""What a model is trained in: bytes of a parameter, and in what its products are multiplied."""

from __future__ import annotations

from dataclasses import dataclass

from harness.config.schema.run import Config, Precision
from harness.records.run.provenance import Facts


@dataclass(frozen=True)
class TrainingPrecision:
    """Bytes that one parameter costs, and in what its products are multiplied."""

    name: str
    weight_bytes: float
    gradient_bytes: float
    optimizer_bytes: float
    activation_bytes: float
    """Of one activation."""
    matmul_dtype: str
    fused_kernels: bool = True
    """Attention never writes its scores out (arXiv:2205.14135), and products overlap with collectives."""

    @property
    def state_bytes(self) -> float:
        """What stays from step to step."""
        return self.weight_bytes + self.optimizer_bytes


FLOAT32 = TrainingPrecision("float32", 4, 4, 8, 4, "float32")
"""What the harness trains with where nothing is told: AdamW, all in float32."""
MIXED = TrainingPrecision("mixed", 2, 4, 8, 2, "bf16")
"""bfloat16 weights and moments, float32 master weights and gradients (arXiv:2412.19437, section 3.3.2): 10
bytes a parameter from step to step."""
FP8 = TrainingPrecision("fp8", 2, 4, 8, 2, "fp8")
"""The same, with products in 8 bits."""
FP4 = TrainingPrecision("fp4", 2, 4, 8, 2, "fp4")
"""The same, with products in 4 bits."""


def run_precision(config: Config, facts: Facts) -> TrainingPrecision:
    """Of one of our own runs: weights and gradients in float32 whatever the products are in, and what its
    optimizer keeps of each parameter, as `harness.worker.describe` counted it."""
    weights, gradients = 4 * facts.parameters, 4 * (facts.trainable or facts.parameters)
    optimizer = facts.state_bytes - weights - gradients
    half = config.compute.dtype is Precision.bfloat16
    return TrainingPrecision(
        name=f"float32 state, {'bf16' if half else 'float32'} products",
        weight_bytes=4,
        gradient_bytes=gradients / facts.parameters,
        optimizer_bytes=optimizer / facts.parameters,
        activation_bytes=2 if half else 4,
        matmul_dtype="bf16" if half else "float32",
    )


def total_state_bytes(parameters: int, precision: TrainingPrecision) -> float:
    """Of a whole run, all devices together: what stays from step to step, with gradients."""
    return parameters * (precision.state_bytes + precision.gradient_bytes)
