"""Application of a kernel to the sequences and heads that each device holds. XLA cannot divide a kernel."""

from __future__ import annotations

from collections.abc import Callable

from jax import Array

from harness.parallel.sharding.axis_rules import out_sharding, partition_spec
from harness.parallel.sharding.sequence_parallel import per_device


def map_heads(
    kernel: Callable[..., Array],
    query_BHTK: Array,
    key_BGTK: Array,
    value_BGTK: Array,
    sink_H: Array | None,
    document_BT: Array | None,
) -> Array:
    """Return `kernel` of each device's share of these arrays, [B, H, T, K]."""
    arrays = query_BHTK, key_BGTK, value_BGTK, sink_H, document_BT
    if out_sharding() is None:
        return kernel(*arrays)
    heads, kv_heads = (partition_spec("batch", axis, None, None) for axis in ("heads", "kv_heads"))
    specs = heads, kv_heads, kv_heads, partition_spec("heads"), partition_spec("batch", None)
    # Libraries do not declare over which devices the outputs of their kernels vary.
    return per_device(kernel, specs, heads, check_vma=False)(*arrays)
