"""What JAX leaves out at the edge of a map over some axes, and that it still has to be put in."""

import jax
import jax.numpy as jnp
import pytest
from jax import P
from jax._src import shard_map as private

from harness.config.schema.cluster import MeshConfig
from harness.parallel.sharding import shard_map_patch
from harness.parallel.sharding.mesh import abstract_mesh, lane_mesh


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


def test_the_split_over_other_axes_is_kept_whatever_jax_does_by_itself(plain):
    """Where the first line fails, JAX lost its private function and its own lowering gathers."""
    assert hasattr(private, shard_map_patch.NAME) or not shard_map_patch.loses_auto_shardings()
    assert (gathers() > 0) == shard_map_patch.loses_auto_shardings(), "the compiler does what is asked"
    shard_map_patch.preserve_auto_shardings()
    assert gathers() == 0
    assert not shard_map_patch.loses_auto_shardings()


def test_jax_is_patched_only_where_it_loses_the_split(plain, monkeypatch):
    before = getattr(private, shard_map_patch.NAME)
    monkeypatch.setattr(shard_map_patch, "loses_auto_shardings", lambda: False)
    shard_map_patch.preserve_auto_shardings()
    assert getattr(private, shard_map_patch.NAME) is before


def test_it_can_be_asked_while_another_program_is_traced(plain):
    def traced(x):
        shard_map_patch.preserve_auto_shardings()
        return x + 1

    mesh = lane_mesh(jax.devices()[:4], MeshConfig(data=2, context=2))
    with jax.set_mesh(mesh):
        assert jax.jit(traced)(1) == 2
    assert gathers() == 0


def test_the_first_map_of_a_process_may_be_traced_inside_the_mesh_of_a_run(plain):
    with jax.sharding.use_abstract_mesh(abstract_mesh(MeshConfig(context=2))):
        shard_map_patch.preserve_auto_shardings()
    assert gathers() == 0
