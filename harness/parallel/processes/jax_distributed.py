"""Makes this process one of several that JAX sees as one machine. The only caller of `jax.distributed`."""

from __future__ import annotations

import jax

from harness.config.process_group import ProcessGroup
from harness.parallel.processes.rendezvous import Rendezvous, connect_processes

COLLECTIVES = "gloo"
"""What adds up across processes on CPU: one rank a device, in a ring, so that the bits depend on the mesh and
not on how many processes its devices are in."""


def initialize(rendezvous: Rendezvous, devices: int) -> None:
    """Before any backend exists. `devices`: of this process, which sees them as 0 up.

    All four arguments are given, so JAX asks no scheduler. Its own handler of SIGTERM stays out: when to
    leave is agreed on by `parallel.processes.agreement`.
    """
    processes = rendezvous.processes
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", COLLECTIVES)
    jax.distributed.initialize(
        rendezvous.coordinator,
        processes.count,
        processes.index,
        list(range(devices)),
        initialization_timeout=int(processes.arrive_seconds),
        heartbeat_timeout_seconds=processes.heartbeat_seconds,
        shutdown_timeout_seconds=processes.shutdown_seconds,
        coordinator_bind_address=f"0.0.0.0:{rendezvous.coordinator.rpartition(':')[2]}",
    )
    if rendezvous.reserved_port is not None:
        rendezvous.reserved_port.close()


def initialize_single(devices: int) -> None:
    """One process that has all devices, and adds up across them as several would."""
    alone = ProcessGroup(1, "alone", "127.0.0.1")
    initialize(connect_processes(alone, lambda _: None, lambda: None), devices)


def shutdown(rendezvous: Rendezvous) -> None:
    """Together with all others, who have agreed that it is over."""
    rendezvous.closing = True
    jax.distributed.shutdown()
