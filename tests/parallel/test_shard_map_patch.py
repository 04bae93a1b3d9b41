"""What JAX leaves out at the edge of a map over some axes, and that it still has to be put in."""

import jax
import jax.numpy as jnp
import pytest
from jax import P
from jax._src import shard_map as private

from harness.config.schema.cluster import MeshConfig
from harness.parallel.sharding import shard_map_patch
from harness.parallel.sharding.mesh import lane_mesh


def gathers():
    """In a map over `context` of what `data` splits too."""
    mesh = lane_mesh(jax.devices()[:4], MeshConfig(data=2, context=2))
    each = jax.shard_map(
        lambda x: jnp.tanh(x) * 2,
        in_specs=P(None, "context"),
        out_specs=P(None, "context"),
        axis_names={"context"},
    )
    with jax.set_mesh(mesh):
        split = jax.NamedSharding(mesh, P("data", "context"))
        x = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=split)
        return jax.jit(lambda x: each(x)).lower(x).compile().as_text().count(" all-gather(")


@pytest.fixture
def plain(monkeypatch):
    """JAX as it comes, whatever ran before."""
    wrapped = getattr(private, shard_map_patch.NAME)
    monkeypatch.setattr(private, shard_map_patch.NAME, getattr(wrapped, "__wrapped__", wrapped))
    shard_map_patch.preserve_auto_shardings.cache_clear()
    yield
    shard_map_patch.preserve_auto_shardings.cache_clear()


def test_the_split_over_other_axes_is_lost_without_us_and_kept_with_us(plain):
    """Where the first line fails, JAX does it by itself: `parallel.sharding.shard_map_patch` can go."""
    assert jax.__version__.startswith("0.10."), "tried in no other: see whether the lines below still hold"
    assert gathers() > 0
    shard_map_patch.preserve_auto_shardings()
    assert gathers() == 0
