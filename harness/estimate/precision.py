"""Dtypes that a model is trained in: bytes per parameter, and the dtype of matrix products."""

from __future__ import annotations

from dataclasses import dataclass

from harness.config.schema.run import Config, Precision
from harness.records.run.provenance import Facts


@dataclass(frozen=True)
class TrainingPrecision:
    """Bytes of each parameter and activation, and the dtype of matrix products."""

    name: str
    weight_bytes: float
    gradient_bytes: float
    optimizer_bytes: float
    value_bytes: float
    """Bytes of one activation or of a weight in use."""
    matmul_dtype: str
    fp8_parameters: int = 0
    """Number of parameters of weights whose products have 8-bit factors, whatever `matmul_dtype` is."""
    fused_kernels: bool = True
    """Attention never writes its scores out (arXiv:2205.14135), and products overlap with collectives."""


FLOAT32 = TrainingPrecision("float32", 4, 4, 8, 4, "float32")
"""The harness's default: AdamW, all in float32."""
MIXED = TrainingPrecision("mixed", 2, 4, 8, 2, "bf16")
"""bfloat16 weights and moments, float32 master weights and gradients (arXiv:2412.19437, section 3.3.2): 10
bytes a parameter from step to step."""
FP8 = TrainingPrecision("fp8", 2, 4, 8, 2, "fp8")
"""MIXED with products in 8 bits."""
FP4 = TrainingPrecision("fp4", 2, 4, 8, 2, "fp4")
"""MIXED with products in 4 bits."""


def run_precision(config: Config, facts: Facts) -> TrainingPrecision:
    """Return the precision of one of our own runs, with the bytes that `harness.worker.describe` counted."""
    weights = facts.weight_bytes or 4 * facts.parameters
    gradients = facts.gradient_bytes or 4 * (facts.trainable or facts.parameters)
    optimizer = facts.state_bytes - weights - gradients
    half = config.compute.dtype is Precision.bfloat16
    return TrainingPrecision(
        name=f"{_state_name(config)} state, {'bf16' if half else 'float32'} products",
        weight_bytes=weights / facts.parameters,
        gradient_bytes=gradients / facts.parameters,
        optimizer_bytes=optimizer / facts.parameters,
        value_bytes=2 if half else 4,
        matmul_dtype="bf16" if half else "float32",
        fp8_parameters=facts.fp8_parameters,
    )


def _state_name(config: Config) -> str:
    dtypes = {config.compute.parameter_dtype, config.optimizer.moment_dtype}
    if dtypes == {Precision.float32}:
        return "float32"
    return "bf16" if dtypes == {Precision.bfloat16} else "bf16 and float32"
