"""A worker trains without JAX's own compile cache: what that one gives back cannot be serialised again."""

from typing import Any

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(autouse=True, scope="module")
def without_compilation_cache():
    """Other tests of the same process may have switched it on."""
    config: Any = jax.config
    before = config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", before)
    compilation_cache.reset_cache()


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    """Give the test an empty cache, so that Orbax makes its first save."""
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "own_cache"))
