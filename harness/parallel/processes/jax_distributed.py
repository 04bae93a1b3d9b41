"""Initialisation of multi-process JAX. This is the only caller of `jax.distributed`."""

from __future__ import annotations

from functools import partial

import jax
from jax.extend.backend import register_backend_factory

from harness.config.process_group import LOOPBACK, ProcessGroup
from harness.parallel.processes.private_jax import make_cpu_client
from harness.parallel.processes.rendezvous import Rendezvous, connect_processes, is_loopback

COLLECTIVES = "gloo"
"""Implementation of cross-process collectives on CPU: one rank per device, in a ring, so that results depend
on the mesh and not on the number of processes."""


def initialize(rendezvous: Rendezvous, devices: int) -> None:
    """Initialise multi-process JAX, before any backend exists. `devices`: number of this process's devices,
    numbered from 0.

    All four arguments are given, so JAX asks no scheduler. JAX's own SIGTERM handler is disabled: the
    processes agree on when to stop through `parallel.processes.agreement`. Neither the coordinator nor the
    collectives check who connects, so they listen on loopback alone where all processes are on one machine.
    """
    processes = rendezvous.processes
    host, _, port = rendezvous.coordinator.rpartition(":")
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", COLLECTIVES)
    jax.distributed.initialize(
        rendezvous.coordinator,
        processes.count,
        processes.index,
        list(range(devices)),
        initialization_timeout=int(processes.join_timeout_seconds),
        heartbeat_timeout_seconds=processes.heartbeat_seconds,
        shutdown_timeout_seconds=processes.shutdown_seconds,
        coordinator_bind_address=f"{host if is_loopback(host) else '0.0.0.0'}:{port}",
    )
    if is_loopback(host):
        register_backend_factory("cpu", partial(make_cpu_client, host), fail_quietly=False)
    if rendezvous.reserved_port is not None:
        rendezvous.reserved_port.close()


def initialize_single(devices: int) -> None:
    """Initialise one process with all devices; its collectives sum in the order of several processes."""
    process = ProcessGroup(1, "alone", LOOPBACK)
    initialize(connect_processes(process, lambda _: None, lambda: None), devices)


def shutdown(rendezvous: Rendezvous) -> None:
    """Shut down multi-process JAX. Every process must have agreed to stop and must call this."""
    rendezvous.closing = True
    jax.distributed.shutdown()
