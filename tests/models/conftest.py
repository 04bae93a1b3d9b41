"""Small models, compiled once a machine."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from harness.config.schema.data import DataConfig, Packing
from harness.config.schema.run import ComputeConfig, Config, ModelConfig, ModuleConfig, ScaleConfig
from harness.core.cache.cache_dir import cache_dir
from harness.models import Model, build

jax.config.update("jax_compilation_cache_dir", str(cache_dir("test-programs")))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_disallow_mesh_context_manager", True)

VOCABULARY = 16
SHAPE: dict[str, Any] = {"width": 8, "layers": 3, "heads": 4, "head_width": 4, "ffn": 12}
NO_PADDING: dict[str, Any] = {"vocabulary_multiple": 1}


@pytest.fixture
def small() -> Callable[..., Model]:
    """Builds a model of three layers; keywords change `model`, `compute` is given whole; documents
    are masked where `end`, the token that ends one, is given; rows have empty places if `padded`."""

    def make(
        name: str = "mha",
        length: int = 16,
        compute: ComputeConfig | None = None,
        end: int | None = None,
        padded: bool = False,
        **changes: Any,
    ) -> Model:
        options = changes.pop("options", {})
        model = ModelConfig(attention=ModuleConfig(name, options), **(SHAPE | NO_PADDING | changes))
        data = DataConfig(sequence_length=length, mask_documents=end is not None)
        data.packing = Packing.best_fit if padded else Packing.concatenate
        config = Config(
            model=model,
            scale=ScaleConfig("tiny", 3_000, 10_000, 4),
            compute=compute or ComputeConfig(),
            data=data,
        )
        return build(config, VOCABULARY, end)

    return make


@pytest.fixture
def tokens() -> Callable[..., np.ndarray]:
    def make(batch: int, length: int) -> np.ndarray:
        return np.random.default_rng(7).integers(0, VOCABULARY, (batch, length), dtype=np.int32)

    return make
