"""Lookup of tokens in a table whose rows may be split over devices."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from harness.models.layers import gather_rounded
from harness.parallel.sharding.axis_rules import LOGICAL_AXIS_RULES, out_sharding, partition_spec
from harness.parallel.sharding.sequence_parallel import num_shards, per_device

VOCABULARY_AXIS = str(LOGICAL_AXIS_RULES["vocabulary"])


def lookup_rows(
    table_VD: Float[Array, "V D"], tokens_BT: Int[Array, "B T"], dtype: jnp.dtype
) -> Float[Array, "B T D"]:
    """Return the rows of these tokens in `dtype`. Each device looks into its shard of the rows, and no device
    holds another's.

    Rows are cast after the lookup: its gradient adds up thousands of rows a token, in float32.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or (num_shards() == 1 and mesh.shape[VOCABULARY_AXIS] == 1):
        return table_VD.at[tokens_BT].get(out_sharding=out_sharding("rows", None, None)).astype(dtype)
    # JAX 0.10 rejects `get` where some axes are manual and some explicit.
    specs = (partition_spec("vocabulary", None), partition_spec("rows", None))
    lookup = per_device(partial(_lookup_in_shard, dtype=dtype), specs, partition_spec("rows", None, None))
    return lookup(table_VD, tokens_BT)


def lookup(table: nnx.Param, ids_BT: Int[Array, "B T"], dtype: jnp.dtype) -> Float[Array, "B T D"]:
    """Return the rows of a parameter, whose axes are `vocabulary` and `width`, for these indices."""
    return lookup_rows(gather_rounded(table, dtype), ids_BT, dtype)


def _lookup_in_shard(table_VD: Array, tokens_BT: Array, dtype: jnp.dtype) -> Array:
    """Return the rows of all tokens: one device has a token's row and the others add zero, which is exact."""
    row_BT = tokens_BT - jax.lax.axis_index(VOCABULARY_AXIS) * len(table_VD)
    is_here_BT1 = ((row_BT >= 0) & (row_BT < len(table_VD)))[..., None]
    rows_BTD = table_VD[jnp.clip(row_BT, 0, len(table_VD) - 1)].astype(dtype)
    return jax.lax.psum(jnp.where(is_here_BT1, rows_BTD, 0), VOCABULARY_AXIS)
