"""Softmax attention by cuDNN, the fused kernel of NVIDIA's GPUs.

XLA reads the custom calls below and makes cuDNN's graphs of them (xla/service/gpu/transforms/
cudnn_custom_call_compiler.cc). They are the calls of `jax.nn.dot_product_attention(implementation="cudnn")`,
which needs a GPU to be traced and has no sinks. Nothing of JAX that is private is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from harness.models.attention.kernels.map_heads import map_heads

WIDEST_HEAD = 128
"""Largest head width on every GPU that cuDNN's attention runs on; from Hopper on it takes 256."""
MASKED = -(2.0**41)
"""Bias of a masked score, as in JAX: cuDNN subtracts two of them, so it is far from the smallest number."""


def cudnn_attention(
    query_BHTK: Array,
    key_BGTK: Array,
    value_BGTK: Array,
    window: int | None,
    softcap: float | None = None,
    sink_H: Array | None = None,
    document_BT: Array | None = None,
) -> Array:
    """Compute `softmax.attend` in one kernel, in bfloat16 and without a softcap. Values narrower than keys
    are padded. The mask of documents is written out, [B, T, T] in bfloat16; scores are not."""
    assert softcap is None, "choose_attention"
    value_width = value_BGTK.shape[3]
    padding = ((0, 0), (0, 0), (0, 0), (0, query_BHTK.shape[3] - value_width))

    def each_device(query_BHTK, key_BGTK, value_BGTK, sink_H, document_BT) -> Any:
        bias_B1TT = None if document_BT is None else _document_bias(document_BT, query_BHTK.dtype)
        return _attend(window, query_BHTK, key_BGTK, value_BGTK, bias_B1TT, sink_H)

    arrays = query_BHTK, key_BGTK, jnp.pad(value_BGTK, padding), sink_H, document_BT
    return map_heads(each_device, *arrays)[..., :value_width]


def _document_bias(document_BT: Array, dtype: Any) -> Array:
    same_BTT = document_BT[:, :, None] == document_BT[:, None]
    return jnp.where(same_BTT, 0.0, MASKED).astype(dtype)[:, None]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    window: int | None,
    query_BHTK: Array,
    key_BGTK: Array,
    value_BGTK: Array,
    bias_B1TT: Array | None,
    sink_H: Array | None,
) -> Array:
    return _forward(window, query_BHTK, key_BGTK, value_BGTK, bias_B1TT, sink_H)[0]


def _forward(
    window: int | None,
    query_BHTK: Array,
    key_BGTK: Array,
    value_BGTK: Array,
    bias_B1TT: Array | None,
    sink_H: Array | None,
) -> tuple[Array, tuple[Any, ...]]:
    B, H, T, _ = query_BHTK.shape
    operands = [query_BHTK, key_BGTK, value_BGTK, *_given(bias_B1TT)]
    results = [jax.typeof(query_BHTK), jax.ShapeDtypeStruct((B, H, T), jnp.float32)]
    target = "__cudnn$fmhaSoftmax" if bias_B1TT is None else "__cudnn$fmhaScaleBiasSoftmax"
    mixed_BHTK, total_BHT = _call(target, window, operands, results, _FORWARD_PRODUCTS)
    if sink_H is not None:  # one more term in the sum of each query, whose value is zero
        with_sink_BHT = jnp.logaddexp(total_BHT, sink_H[:, None])
        share_BHT1 = jnp.exp(total_BHT - with_sink_BHT)[..., None]
        mixed_BHTK = (mixed_BHTK.astype(jnp.float32) * share_BHT1).astype(mixed_BHTK.dtype)
        total_BHT = with_sink_BHT
    return mixed_BHTK, (query_BHTK, key_BGTK, value_BGTK, bias_B1TT, sink_H, mixed_BHTK, total_BHT)


def _backward(window: int | None, residuals: tuple[Any, ...], slope_BHTK: Array) -> tuple[Array | None, ...]:
    """cuDNN computes the weights as exp(score - total), so a sink is in the total that it is given."""
    query_BHTK, key_BGTK, value_BGTK, bias_B1TT, sink_H, mixed_BHTK, total_BHT = residuals
    arrays = query_BHTK, key_BGTK, value_BGTK
    operands = [*arrays, total_BHT, slope_BHTK, *_given(bias_B1TT), mixed_BHTK]
    target = "__cudnn$fmhaSoftmaxBackward" if bias_B1TT is None else "__cudnn$fmhaScaleBiasSoftmaxBackward"
    gradients = _call(target, window, operands, [jax.typeof(array) for array in arrays], _BACKWARD_PRODUCTS)
    sink_slope_H = None
    if sink_H is not None:
        along_BHT = jnp.einsum("bhtk,bhtk->bht", mixed_BHTK, slope_BHTK, preferred_element_type=jnp.float32)
        sink_slope_H = -jnp.sum(jnp.exp(sink_H[:, None] - total_BHT) * along_BHT, axis=(0, 2))
    return *gradients, None, sink_slope_H


_attend.defvjp(_forward, _backward)


def _given(array: Array | None) -> list[Array]:
    return [] if array is None else [array]


def _call(
    target: str,
    window: int | None,
    operands: Sequence[Array],
    results: Sequence[Any],
    products: dict[str, Any],
) -> list[Array]:
    """Return the results of a custom call. The last result of the call is its workspace, which XLA sizes."""
    B, H, T, K = operands[0].shape
    config = {
        "algorithm": {
            "algo_id": "0",
            "math_type": "TENSOR_OP_MATH",
            "tuning_knobs": {"17": "1", "24": "0"},
            "is_cudnn_frontend": True,
            "workspace_size": "0",
        },
        "fmha_scale": 1 / math.sqrt(K),
        "intermediate_tensor_shape": {
            "element_type": "BF16",
            "dimensions": [str(B), str(H), str(T), str(T)],
            "tuple_shapes": [],
            "layout": _SCORE_LAYOUT,
            "is_dynamic_dimension": [False] * 4,
        },
        "is_flash_attention": True,
        "mask_type": "CAUSAL",
        **products,
        "dropout_rate": 0.0,
        "seed": 42,
        "sliding_window_length": window or 0,
        "max_seg_per_batch": 1,
        "is_paged_attention": False,
    }
    shapes = [jax.ShapeDtypeStruct(result.shape, result.dtype) for result in results]
    call = jax.ffi.ffi_call(
        target,
        [*shapes, jax.ShapeDtypeStruct((0,), jnp.uint8)],
        custom_call_api_version=2,
        legacy_backend_config=json.dumps({"operation_queue_id": "0", "cudnn_fmha_backend_config": config}),
    )
    return list(call(*operands)[:-1])


def _product(left: int, right: int) -> dict[str, list[str]]:
    """Return the dimension numbers of a product of [B, H, ...] over one axis of each factor."""
    contracted = {"lhs_contracting_dimensions": [str(left)], "rhs_contracting_dimensions": [str(right)]}
    batch = {"lhs_batch_dimensions": ["0", "1"], "rhs_batch_dimensions": ["0", "1"]}
    return contracted | batch


_FORWARD_PRODUCTS = {
    "bmm1_dot_dimension_numbers": _product(3, 3),
    "bmm2_dot_dimension_numbers": _product(3, 2),
}
_BACKWARD_PRODUCTS = {
    "bmm1_grad_gemm1_dot_dimension_numbers": _product(2, 2),
    "bmm1_grad_gemm2_dot_dimension_numbers": _product(3, 2),
    "bmm2_grad_gemm1_dot_dimension_numbers": _product(2, 2),
    "bmm2_grad_gemm2_dot_dimension_numbers": _product(3, 3),
}
_SCORE_LAYOUT = {
    "dim_level_types": [],
    "dim_unique": [],
    "dim_ordered": [],
    "minor_to_major": ["3", "2", "1", "0"],
    "tiles": [],
    "element_size_in_bits": "0",
    "memory_space": "0",
    "index_primitive_type": "PRIMITIVE_TYPE_INVALID",
    "pointer_primitive_type": "PRIMITIVE_TYPE_INVALID",
    "dynamic_shape_metadata_prefix_bytes": "0",
}
