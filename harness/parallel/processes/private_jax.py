"""Private parts of JAX that several processes need, since no public function does this."""

from __future__ import annotations

from typing import Any

from jax._src import distributed, xla_bridge
from jax._src.lib import _jax  # pyright: ignore[reportPrivateImportUsage]


def coordination_client() -> Any:
    """Return the client of JAX's coordinator, which holds a key-value store."""
    return distributed.global_state.client


def make_cpu_client(host: str) -> Any:
    """Make JAX's CPU client with collectives that listen on `host`. JAX's own choice is the address of the
    host name, and it has no setting."""
    collectives = _jax.make_gloo_tcp_collectives(coordination_client(), hostname=host)
    return xla_bridge.make_cpu_client(collectives)
