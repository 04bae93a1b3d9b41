"""FLOPs per token, from the mechanisms' own counts."""

from __future__ import annotations

from harness.config.schema.run import Remat
from harness.models.mechanism import MatmulFlops
from harness.models.model_spec import ModelSpec
from harness.models.text.own_products import own_products

TRAINING_FACTOR = 3
"""Products per forward product in a training step: itself, and backward one for each of its factors."""


def model_flops(spec: ModelSpec) -> float:
    """Return the model FLOPs per trained token: 6 per used weight, plus attention to visible keys."""
    return TRAINING_FACTOR * (sum(_layer_model_flops(spec)) + _head_flops(spec))


def model_flops_last_layers(spec: ModelSpec, layers: int) -> float:
    """Return the model FLOPs per trained token if only the last `layers` layers learn and the embedding is
    frozen: forward through all layers; backward to the inputs and weights of the last ones, and only to the
    inputs of a tied head."""
    head = _head_flops(spec)
    head_backward = head * (0.5 if spec.config.tie_embeddings else 1)
    backward = sum(_layer_model_flops(spec)[spec.shape.layers - layers :]) + head_backward
    return sum(_layer_model_flops(spec)) + head + (TRAINING_FACTOR - 1) * backward


def model_flops_lora(spec: ModelSpec, lora_parameters: float) -> float:
    """Return the model FLOPs per trained token if all weights are frozen and only low-rank factors with
    `lora_parameters` parameters learn, as if x A B were multiplied: 6 per parameter of a factor, 4 per used
    weight (forward, and backward to its input), plus attention to visible keys."""
    products = zip(_layer_model_flops(spec), _layer_matmuls(spec), strict=True)
    layers = sum(
        TRAINING_FACTOR * model - min(model, matmuls.weights + matmuls.final) for model, matmuls in products
    )
    return layers + (TRAINING_FACTOR - 1) * _head_flops(spec) + 2 * TRAINING_FACTOR * lora_parameters


def executed_flops(spec: ModelSpec, remat: Remat) -> float:
    """Return the executed FLOPs per trained token, with rematerialisation and idle turns of a pipeline."""
    return training_flops(forward_flops(spec), _executed_matmuls(spec), remat)


def forward_flops(spec: ModelSpec) -> float:
    """Return the executed FLOPs per token of the forward pass."""
    head = 2.0 * spec.shape.width * spec.table_rows
    return sum(products.total for products in _executed_matmuls(spec)) + head


def _layer_model_flops(spec: ModelSpec) -> list[float]:
    """Return the model FLOPs per token of the forward pass, by place in the order of the layers."""
    attention, feedforward, share = spec.attention, spec.feedforward, _own_share(spec).total
    return [attention.model_flops(c) + feedforward.model_flops(c) + share for c in spec.executed_contexts]


def _layer_matmuls(spec: ModelSpec) -> list[MatmulFlops]:
    attention, feedforward, share = spec.attention, spec.feedforward, _own_share(spec)
    return [
        attention.executed_flops(c) + feedforward.executed_flops(c) + share for c in spec.executed_contexts
    ]


def _own_share(spec: ModelSpec) -> MatmulFlops:
    """Return the products of block, stream, embedding, head and objective, in equal parts for each layer
    applied."""
    return own_products(spec) * (1 / len(spec.order))


def _executed_matmuls(spec: ModelSpec) -> list[MatmulFlops]:
    """Return the products of each layer, with those of the turns in which a stage has no micro-batch."""
    return [matmuls * spec.pipeline.executed_share for matmuls in _layer_matmuls(spec)]


def training_flops(forward: float, layers: list[MatmulFlops], remat: Remat, inputs: float = 0.0) -> float:
    """Return the executed FLOPs of a training step: of the forward pass and its gradients, except those of
    the `inputs` products, and of what the backward pass recomputes of each layer."""

    def recomputed(layer: MatmulFlops) -> float:
        full = layer.weights + layer.activations
        return layer.rescored + {Remat.none: 0.0, Remat.dots: layer.activations, Remat.full: full}[remat]

    return TRAINING_FACTOR * forward - inputs + sum(map(recomputed, layers))


def _head_flops(spec: ModelSpec) -> float:
    return 2.0 * spec.shape.width * spec.shape.vocabulary
