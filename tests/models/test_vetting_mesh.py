"""Parts from outside on a mesh of eight devices that are not there."""

import jax.numpy as jnp
import pytest
from flax import nnx

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import ModuleConfig
from harness.config.socket_registry import NoOptions
from harness.core.errors import UserError
from harness.models.layers import project
from harness.models.parameters import weight
from harness.models.registry import register_feedforward
from harness.models.vetting.mesh_types import check_on_mesh
from harness.parallel.sharding.mesh import abstract_mesh

EIGHT = abstract_mesh(MeshConfig(data=2, fsdp=2, tensor=2))


class TwoProducts(nnx.Module):
    def __init__(self, context, options):
        D, F = context.shape.width, context.shape.ffn
        self.up = weight((D, F), ("width", "ffn"), fan_in=D)
        self.down = weight((F, D), ("ffn", "width"), fan_in=F)


@register_feedforward("lays_out", NoOptions)
class LaysOut(TwoProducts):
    def __call__(self, x_BTD):
        return project(jnp.square(project(x_BTD, self.up)), self.down)


@register_feedforward("ignores_layout", NoOptions)
class IgnoresLayout(TwoProducts):
    def __call__(self, x_BTD):
        return jnp.square(x_BTD @ jnp.asarray(self.up[...])) @ jnp.asarray(self.down[...])


def test_products_by_project_have_a_layout_on_any_mesh(small):
    check_on_mesh(small(feedforward=ModuleConfig("lays_out")), EIGHT, 4)


def test_a_product_without_a_layout_is_refused_on_several_devices_only(small):
    model = small(feedforward=ModuleConfig("ignores_layout"))
    check_on_mesh(model, abstract_mesh(MeshConfig()), 4)
    with pytest.raises(UserError, match=r"name=ignores_layout cannot be traced over the 8 devices .*project"):
        check_on_mesh(model, EIGHT, 4)
