"""FLOPs per patch of a trained image, in closed form. Work done once per image is divided by its patches."""

from __future__ import annotations

from harness.config.schema.run import Remat
from harness.models.diffusion.attention import attention_flops
from harness.models.diffusion.diffusion_transformer import TIME_FEATURES
from harness.models.diffusion.model_spec import ImageModelSpec
from harness.models.flops import TRAINING_FACTOR, training_flops
from harness.models.mechanism import MatmulFlops


def model_flops(spec: ImageModelSpec) -> float:
    """Return the model FLOPs per patch: 6 per used weight, plus attention. All patches are visible."""
    layers = 0.0
    for context in spec.contexts:
        branches = attention_flops(context, spec.tokens).total + spec.feedforward.model_flops(context)
        layers += spec.tokens / spec.shape.patches * branches + spec.conditioning.model_flops(context)
    return TRAINING_FACTOR * (layers + _input_output_flops(spec))


def executed_flops(spec: ImageModelSpec, remat: Remat) -> float:
    """Return the executed FLOPs per patch, rematerialisation and idle turns of a pipeline included."""
    layers = _layer_matmuls(spec)
    forward = sum(matmuls.total for matmuls in layers) + _input_output_flops(spec)
    return training_flops(forward, layers, remat, inputs=_input_flops(spec))


def _layer_matmuls(spec: ImageModelSpec) -> list[MatmulFlops]:
    matmuls = []
    for context in spec.contexts:
        branches = attention_flops(context, spec.tokens) + spec.feedforward.executed_flops(context)
        if spec.conditioning.entry.implementation.gated:
            branches = MatmulFlops(branches.weights + branches.final, branches.activations)
        branches *= spec.tokens / spec.shape.patches
        layer = branches + spec.conditioning.executed_flops(context)
        matmuls.append(layer * spec.pipeline.executed_share)
    return matmuls


def _input_output_flops(spec: ImageModelSpec) -> float:
    """Return the FLOPs of the patch embedding, the head, the time network and the norm before the head."""
    D, shape = spec.shape.width, spec.shape
    output = 2.0 * D * shape.values + 2.0 * D * D / shape.patches
    return _input_flops(spec) + output + spec.conditioning.model_flops(spec.head_context)


def _input_flops(spec: ImageModelSpec) -> float:
    """Return the FLOPs of products with patches and time features, whose gradients are not needed."""
    D, shape = spec.shape.width, spec.shape
    return 2.0 * D * (shape.values + TIME_FEATURES / shape.patches)
