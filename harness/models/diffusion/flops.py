"""FLOPs of one patch of a trained image, in closed form; what is done once an image is shared among them."""

from __future__ import annotations

from harness.config.schema.run import Remat
from harness.models.diffusion.attention import products
from harness.models.diffusion.diffusion_transformer import TIME_FEATURES
from harness.models.diffusion.model_spec import ImageBlueprint
from harness.models.flops import TRAINED, again
from harness.models.mechanism import Products


def model_flops(blueprint: ImageBlueprint) -> float:
    """6 a weight in use, as of a decoder; every patch sees every other, so that nothing is taken off."""
    layers = sum(
        _share(blueprint) * (products(site, blueprint.tokens).total + blueprint.feedforward.model_flops(site))
        + blueprint.conditioning.model_flops(site)
        for site in blueprint.sites
    )
    return TRAINED * (layers + _ends(blueprint))


def executed_flops(blueprint: ImageBlueprint, remat: Remat) -> float:
    """As the code multiplies them, with what rematerialisation adds."""
    layers = _products(blueprint)
    forward = sum(each.total for each in layers) + _ends(blueprint)
    return TRAINED * forward - _read_in(blueprint) + sum(again(each, remat) for each in layers)


def forward_flops(blueprint: ImageBlueprint) -> float:
    return sum(each.total for each in _products(blueprint)) + _ends(blueprint)


def _products(blueprint: ImageBlueprint) -> list[Products]:
    return [_layer(blueprint, layer) for layer in range(blueprint.shape.layers)]


def _layer(blueprint: ImageBlueprint, layer: int) -> Products:
    site = blueprint.site(layer)
    branches = products(site, blueprint.tokens) + blueprint.feedforward.executed_flops(site)
    if blueprint.conditioning.mechanism.module.gated:
        branches = Products(branches.weights + branches.final, branches.activations)
    return branches * _share(blueprint) + blueprint.conditioning.executed_flops(site)


def _share(blueprint: ImageBlueprint) -> float:
    """Tokens that the layers see, a patch."""
    return blueprint.tokens / blueprint.shape.patches


def _ends(blueprint: ImageBlueprint) -> float:
    """Patches read in and written out, the network of the time, the norm ahead of the head."""
    D, shape = blueprint.shape.width, blueprint.shape
    written = 2.0 * D * shape.values + 2.0 * D * D / shape.patches
    return _read_in(blueprint) + written + blueprint.conditioning.model_flops(blueprint.head_site)


def _read_in(blueprint: ImageBlueprint) -> float:
    """The products with patches and with the waves of the time, of which nobody asks for a gradient."""
    D, shape = blueprint.shape.width, blueprint.shape
    return 2.0 * D * (shape.values + TIME_FEATURES / shape.patches)
