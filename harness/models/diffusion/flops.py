"""FLOPs of one patch of a trained image, in closed form; what is done once an image is shared among them."""

from __future__ import annotations

from harness.config.schema.run import Remat
from harness.models.diffusion.attention import attention_flops
from harness.models.diffusion.diffusion_transformer import TIME_FEATURES
from harness.models.diffusion.model_spec import ImageModelSpec
from harness.models.flops import TRAINING_FACTOR, rematerialised_flops
from harness.models.mechanism import MatmulFlops


def model_flops(spec: ImageModelSpec) -> float:
    """6 a weight in use, as of a decoder; every patch sees every other, so that nothing is taken off."""
    layers = sum(
        _tokens_per_patch(spec)
        * (attention_flops(context, spec.tokens).total + spec.feedforward.model_flops(context))
        + spec.conditioning.model_flops(context)
        for context in spec.layer_contexts
    )
    return TRAINING_FACTOR * (layers + _input_output_flops(spec))


def executed_flops(spec: ImageModelSpec, remat: Remat) -> float:
    """As the code multiplies them, with what rematerialisation adds."""
    layers = _layer_matmuls(spec)
    forward = sum(each.total for each in layers) + _input_output_flops(spec)
    return (
        TRAINING_FACTOR * forward
        - _input_flops(spec)
        + sum(rematerialised_flops(each, remat) for each in layers)
    )


def forward_flops(spec: ImageModelSpec) -> float:
    return sum(each.total for each in _layer_matmuls(spec)) + _input_output_flops(spec)


def _layer_matmuls(spec: ImageModelSpec) -> list[MatmulFlops]:
    return [_matmuls_of_layer(spec, layer) for layer in range(spec.shape.layers)]


def _matmuls_of_layer(spec: ImageModelSpec, layer: int) -> MatmulFlops:
    context = spec.layer_context(layer)
    branches = attention_flops(context, spec.tokens) + spec.feedforward.executed_flops(context)
    if spec.conditioning.mechanism.module.gated:
        branches = MatmulFlops(branches.weights + branches.final, branches.activations)
    return branches * _tokens_per_patch(spec) + spec.conditioning.executed_flops(context)


def _tokens_per_patch(spec: ImageModelSpec) -> float:
    """Tokens that the layers see, a patch."""
    return spec.tokens / spec.shape.patches


def _input_output_flops(spec: ImageModelSpec) -> float:
    """Patches read in and written out, the network of the time, the norm ahead of the head."""
    D, shape = spec.shape.width, spec.shape
    written = 2.0 * D * shape.values + 2.0 * D * D / shape.patches
    return _input_flops(spec) + written + spec.conditioning.model_flops(spec.head_context)


def _input_flops(spec: ImageModelSpec) -> float:
    """The products with patches and with the waves of the time, of which nobody asks for a gradient."""
    D, shape = spec.shape.width, spec.shape
    return 2.0 * D * (shape.values + TIME_FEATURES / shape.patches)
