"""Steps of a small model in each precision, as JSON: `python -m tests.models.gradient_steps [CORE ...]`."""

import hashlib
import json
import os
import re
import sys
from typing import Any

import jax
import numpy as np

from harness.config.schema.data import DataConfig
from harness.config.schema.run import ComputeConfig, Config, ModelConfig, ModuleConfig, Precision, ScaleConfig
from harness.models import build

VOCABULARY, LENGTH, BATCH, STEPS = 192, 128, 4, 3
DOT = re.compile(r"= (\w+)\[[\d,]*\]\S* dot\(%([\w.-]+), %([\w.-]+)\)")
ARRAY = re.compile(r"%([\w.-]+) = (\w+)\[")


def model_of(dtype: Precision) -> Any:
    sizes: dict[str, Any] = {"width": 64, "layers": 2, "heads": 4, "head_width": 16, "ffn": 160}
    config = Config(
        model=ModelConfig(attention=ModuleConfig("gqa", {"kv_heads": 2}), **sizes),
        scale=ScaleConfig("tiny", 1, 1, BATCH),
        compute=ComputeConfig(dtype=dtype),
        data=DataConfig(sequence_length=LENGTH),
    )
    return build(config, VOCABULARY)


def products(text: str) -> list[str]:
    """Return the dtypes of each product of an optimised program, such as "bf16 bf16 f32"."""
    dtype_of = dict(ARRAY.findall(text))
    return [f"{dtype_of[x]} {dtype_of[y]} {result}" for result, x, y in DOT.findall(text)]


def train(dtype: Precision, device: Any) -> dict[str, Any]:
    """Return the dtypes of the step's products, the last loss and the bits of the trained parameters."""
    model = model_of(dtype)
    rows: Any = np.random.default_rng(0).integers(0, VOCABULARY, (BATCH, LENGTH + 1)).astype(np.int32)

    def step(params):
        (loss, _), gradient = jax.value_and_grad(lambda p: model.loss(p, rows, 0.0), has_aux=True)(params)
        return loss, jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)

    params = jax.device_put(model.init(0), device)
    program = jax.jit(step).lower(params).compile()
    loss: Any = None
    for _ in range(STEPS):
        loss, params = program(params)
    bits = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params)))
    return {"products": products(program.as_text() or ""), "loss": float(loss), "bits": bits.hexdigest()}


if __name__ == "__main__":
    os.sched_setaffinity(0, map(int, sys.argv[1:]) if sys.argv[1:] else os.sched_getaffinity(0))
    print(json.dumps({dtype.value: train(dtype, jax.devices()[-1]) for dtype in Precision}))
