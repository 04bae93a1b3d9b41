"""Loss and gradient of one layer that is nearly all attention, at 2,048 tokens: full, latent and linear.

`python -m tests.bench.attention STEPS` prints the seconds of each step by mechanism as JSON; they take turns
within one process.
"""

import json
import os
import sys
import time
from typing import Any

from harness.core.jax_setup.cpu_flags import cpu_env

os.environ.update(cpu_env(1))

import jax
import numpy as np

from harness.config.schema.data import DataConfig
from harness.config.schema.run import Config, ModelConfig, ModuleConfig, ScaleConfig
from harness.models import build

LENGTH, VOCABULARY = 2048, 16
SHAPE: dict[str, Any] = {"width": 256, "layers": 1, "heads": 4, "head_width": 64, "ffn": 8}
MECHANISMS = (
    ModuleConfig("mha"),
    ModuleConfig("mla", {"latent": 128, "rotary": 32}),
    ModuleConfig("gated_delta", {"chunk": 64}),
)


def contender(attention: ModuleConfig):
    """One step on its own parameters."""
    config = Config(
        model=ModelConfig(attention=attention, **SHAPE),
        scale=ScaleConfig("bench", 1, 1, 1),
        data=DataConfig(sequence_length=LENGTH),
    )
    model = build(config, VOCABULARY)
    params = {path: jax.numpy.asarray(array) for path, array in model.init(0).items()}
    tokens: Any = np.random.default_rng(0).integers(0, VOCABULARY, (1, LENGTH + 1), dtype=np.int32)
    step = jax.jit(jax.value_and_grad(lambda params: model.loss(params, tokens, 0.0)[0]))
    return lambda: jax.block_until_ready(step(params))


def main(steps: int) -> None:
    contenders = {attention.name: contender(attention) for attention in MECHANISMS}
    times = {name: [] for name in contenders}
    for _ in range(steps + 1):
        for name, step in contenders.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    print(json.dumps({name: values[1:] for name, values in times.items()}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
