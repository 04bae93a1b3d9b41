"""Shardings that follow from logical axes."""

import jax
import jax.numpy as jnp
import pytest
from jax import P

from harness.config.schema.cluster import MeshConfig
from harness.parallel.sharding.axis_rules import reshape_inner
from harness.parallel.sharding.mesh import lane_mesh


@pytest.mark.parametrize("heads", [1, 4])
def test_outer_axes_stay_split_while_the_inner_ones_are_reshaped(heads):
    mesh = lane_mesh(jax.devices()[:4], MeshConfig(data=4))
    x_BHTK = jnp.arange(4.0 * heads * 6 * 2).reshape(4, heads, 6, 2)
    with jax.set_mesh(mesh):
        split_BHTK = jax.device_put(x_BHTK, jax.NamedSharding(mesh, P("data", "tensor", None, None)))
        merged_BHM = reshape_inner(split_BHTK, 2, 12)
        again_BHRTK = reshape_inner(merged_BHM, 2, 3, 2, 2)
    assert jax.typeof(merged_BHM).sharding.spec == P("data", "tensor", None)
    assert jax.typeof(again_BHRTK).sharding.spec == P("data", "tensor", None, None, None)
    assert (again_BHRTK == x_BHTK.reshape(4, heads, 3, 2, 2)).all()
    assert reshape_inner(x_BHTK, 2, 12).shape == (4, heads, 12), "and outside a mesh"
