"""Training state in the dtypes that a run keeps it in: updated in float32, kept in float32 or bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Int32, UInt32

from harness.parallel.processes.agreement import put_sharded
from harness.training.optimizers.optimizer_registry import Optimizer
from harness.training.optimizers.rounding.stochastic_rounding import NoiseKey, noise_key, round_to_bfloat16


class RoundedState(NamedTuple):
    """State of an optimizer whose moments or parameters are rounded. It counts the steps, so that a run that
    resumes rounds as if it had never stopped."""

    inner: Any
    step: Int32[Array, ""]
    seed: UInt32[Array, ""]


def round_moments(optimizer: Optimizer, dtypes: Mapping[str, jnp.dtype]) -> Optimizer:
    """Wrap an optimizer: moments in these dtypes by parameter path, and counted steps for `round_like`. It
    computes in float32. The seed of a new state is 0, until `with_seed`."""

    def init(params: optax.Params) -> RoundedState:
        state = jax.tree.map_with_path(
            lambda path, leaf: leaf.astype(_moment_dtype(path, leaf, dtypes)), optimizer.init(widen(params))
        )
        return RoundedState(state, jnp.int32(0), jnp.uint32(0))

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, RoundedState]:
        updates, inner = optimizer.update(updates, widen(state.inner), params, **extra)
        key = noise_key(state.seed, state.step)
        inner = _round_tree(inner, state.inner, key, "moments")
        return updates, RoundedState(inner, state.step + 1, state.seed)

    return Optimizer(init, update, _read_wide(optimizer.at), _read_wide(optimizer.judged))


def _read_wide(view: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], Any] | None:
    """Return a function of parameters and state that computes in float32, for those of an optimizer whose
    moments are rounded. What it returns is rounded to the nearest value of the dtype of its parameter."""
    if view is None:
        return None

    def read(params: Any, state: RoundedState) -> Any:
        return jax.tree.map(
            lambda x, param: x.astype(param.dtype), view(widen(params), widen(state.inner)), params
        )

    return read


def _moment_dtype(path: tuple[Any, ...], leaf: Array, dtypes: Mapping[str, jnp.dtype]) -> jnp.dtype:
    """Return the dtype of a leaf of an optimizer's state, whose last key is the path of its parameter."""
    if not path or not jnp.issubdtype(leaf.dtype, jnp.floating):  # such as a count of steps
        return leaf.dtype
    return dtypes.get(getattr(path[-1], "key", ""), leaf.dtype)


def round_like(new: Any, old: Any, optimizer: Any) -> Any:
    """Return new float32 parameters in the dtypes of those that they replace; `optimizer`: its state before
    the update. Without a dtype that differs, nothing is done."""
    if not isinstance(optimizer, RoundedState):
        return new
    return _round_tree(new, old, noise_key(optimizer.seed, optimizer.step), "params")


def _round_tree(new: Any, old: Any, key: NoiseKey, name: str) -> Any:
    def round_leaf(path: tuple[Any, ...], leaf: Array, old_leaf: Array) -> Array:
        if leaf.dtype == old_leaf.dtype:
            return leaf
        return round_to_bfloat16(leaf, key, f"{name}/{jax.tree_util.keystr(path)}")

    return jax.tree.map_with_path(round_leaf, new, old)


def widen(tree: Any) -> Any:
    """Return a tree with its bfloat16 arrays in float32; all other arrays are unchanged."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)


def with_seed(optimizer: Any, seed: int) -> Any:
    """Return the state of step 0 for a run with this seed. Only roundings depend on it."""
    if not isinstance(optimizer, RoundedState):
        return optimizer
    return optimizer._replace(seed=put_sharded(np.array(seed % 2**32, np.uint32), optimizer.seed.sharding))
