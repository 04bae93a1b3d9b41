"""The same model in float64, as what float32 is measured against."""

from contextlib import contextmanager
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np

from harness.config.schema.run import Precision
from harness.models import layers
from harness.models.attention import gated_delta
from harness.models.feedforward import moe


@contextmanager
def in_float64():
    """What is traced here has float64 wherever the models say float32. For `compute.dtype=float32`."""
    wide = jnp.dtype(jnp.float64)
    with (
        jax.enable_x64(True),
        patch.object(jnp, "float32", jnp.float64),
        patch.dict(layers.DTYPES, {Precision.float32: jnp.float64}),
        patch.object(gated_delta, "FLOAT32", wide),
        patch.object(moe, "FLOAT32", wide),
    ):
        yield


def widened(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
