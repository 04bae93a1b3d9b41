"""Makes this process one of several that JAX sees as one machine. The only caller of `jax.distributed`."""

from __future__ import annotations

import jax

from harness.config.process_group import Processes
from harness.parallel.processes.rendezvous import Meeting, meet

COLLECTIVES = "gloo"
"""What adds up across processes on CPU: one rank a device, in a ring, so that the bits depend on the mesh and
not on how many processes its devices are in."""


def join(meeting: Meeting, devices: int) -> None:
    """Before any backend exists. `devices`: of this process, which sees them as 0 up.

    All four arguments are given, so JAX asks no scheduler. Its own handler of SIGTERM stays out: when to
    leave is agreed on by `parallel.processes.agreement`.
    """
    processes = meeting.processes
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", COLLECTIVES)
    jax.distributed.initialize(
        meeting.coordinator,
        processes.count,
        processes.index,
        list(range(devices)),
        initialization_timeout=int(processes.arrive_seconds),
        heartbeat_timeout_seconds=processes.heartbeat_seconds,
        shutdown_timeout_seconds=processes.shutdown_seconds,
        coordinator_bind_address=f"0.0.0.0:{meeting.coordinator.rpartition(':')[2]}",
    )
    if meeting.held is not None:
        meeting.held.close()


def join_alone(devices: int) -> None:
    """One process that has all devices, and adds up across them as several would."""
    alone = Processes(1, "alone", "127.0.0.1")
    join(meet(alone, lambda _: None, lambda: None), devices)


def part(meeting: Meeting) -> None:
    """Together with all others, who have agreed that it is over."""
    meeting.closing = True
    jax.distributed.shutdown()
