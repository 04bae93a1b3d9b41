"""Size of the update by layer: rms(update) / rms(weight) of the matrices of each layer, and the largest."""

import jax.numpy as jnp

from harness.extend import register_metric


@register_metric("update_ratio", at="step", unit="1")
def update_ratio(params, updates):
    """Return the ratio of each group of parameters with one name before the first dot, or one layer."""
    squares = {}
    for path, update in updates.items():
        name, *more = path.split(".")
        group = f"{name}{more[0]}" if name in ("layers", "repeats") else name
        sums = squares.get(group, (0.0, 0.0))
        pair = jnp.sum(jnp.square(update)), jnp.sum(jnp.square(params[path].astype(jnp.float32)))
        squares[group] = (sums[0] + pair[0], sums[1] + pair[1])
    ratios = {group: jnp.sqrt(a / (b + 1e-30)) for group, (a, b) in squares.items()}
    return {**ratios, "largest": jnp.max(jnp.stack([*ratios.values()]))}
