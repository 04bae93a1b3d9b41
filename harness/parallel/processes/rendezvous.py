"""Rendezvous of a run's processes, and immediate detection of a lost one.

Process 0 listens on a free port and publishes it; the others connect and stay connected. When all have
connected, process 0 sends the port of JAX's coordinator. It has reserved that port from the start: bound with
SO_REUSEPORT and never listening, so that no other program gets it, while gRPC, which sets the same option,
can bind it too. A computed port (JAX takes 61440 + job number % 4096) is unsafe: with that option a second
coordinator of the same user binds it without an error, and two runs mix.

The connections stay open because the system closes those of a killed peer at once. JAX's heartbeats need
their timeout to notice, and then abort the process before it can report anything. Imports no JAX.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.config.process_group import ProcessGroup

RETRY_SECONDS = 0.1
"""Seconds between two attempts to reach process 0."""
GRACE_SECONDS = 1.0
"""Seconds that an error waits for the end of another process to explain it."""
HELLO_SECONDS = 5.0
"""Seconds that a new connection has to identify itself."""


class MissingProcesses(Exception):
    """Raised when processes did not connect in time; the message names them."""


@dataclass
class Rendezvous:
    """Open connections between processes that train together."""

    processes: ProcessGroup
    coordinator: str
    """Address host:port for `jax.distributed.initialize`, equal in every process."""
    reserved_port: socket.socket | None
    """Socket that holds the coordinator's port, in process 0."""
    connections: Mapping[int, socket.socket]
    """Connections by process index: to all others in process 0, only to process 0 in the others."""
    closing: bool = False
    """True when the ends of other processes are expected."""
    failing: bool = False
    """True when this process ends because of its own error."""

    def watch_peers(self, on_exit: Callable[[str], None]) -> None:
        """Call `on_exit`, in a thread, with a sentence about the first process that ends."""
        for index, connection in self.connections.items():
            threading.Thread(target=self._listen, args=(index, connection, on_exit), daemon=True).start()

    def announce_failure(self, reason: str) -> None:
        """Tell the other processes that this one ends because of its own error."""
        self.failing = True
        for connection in self.connections.values():
            with contextlib.suppress(OSError):
                _send(connection, {"why": reason})

    def _listen(self, index: int, connection: socket.socket, on_exit: Callable[[str], None]) -> None:
        message = _receive(connection)
        if message:
            time.sleep(GRACE_SECONDS)  # an error of all processes: let each report its own
        if not self.closing and not (message and self.failing):
            suffix = f": {message['why']}" if message else ""
            on_exit(f"process {index} of {self.processes.count} ended{suffix}")


def connect_processes(
    processes: ProcessGroup, publish: Callable[[str], None], read_address: Callable[[], str | None]
) -> Rendezvous:
    """Connect all processes and return when every one has connected. Raises MissingProcesses.

    `publish` shares the address of process 0; `read_address` reads it (None: not yet). An address read may be
    of an earlier start: then nobody listens there, or the listener rejects this start.
    """
    deadline = time.monotonic() + processes.join_timeout_seconds
    if processes.index == 0:
        return _accept_all(processes, publish, deadline)
    return _connect_to_primary(processes, read_address, deadline)


def _accept_all(processes: ProcessGroup, publish: Callable[[str], None], deadline: float) -> Rendezvous:
    """Accept all other processes, in process 0."""
    host = processes.host or socket.gethostname()
    reserved_port = socket.socket()
    reserved_port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved_port.bind(("", 0))
    with socket.create_server(("", 0), backlog=processes.count) as server:
        publish(f"{host}:{server.getsockname()[1]}")
        connections: dict[int, socket.socket] = {}
        while len(connections) < processes.count - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                missing = [str(index) for index in range(1, processes.count) if index not in connections]
                raise MissingProcesses(
                    f"process {', '.join(missing)} of {processes.count} did not connect within"
                    f" {processes.join_timeout_seconds:g} s"
                ) from None
            connection.settimeout(HELLO_SECONDS)
            hello = _receive(connection)
            connection.settimeout(None)
            if hello and hello.get("start") == processes.launch_id:
                connections[hello["index"]] = connection
            else:
                connection.close()
    coordinator = f"{host}:{reserved_port.getsockname()[1]}"
    for connection in connections.values():
        _send(connection, {"coordinator": coordinator})
    return Rendezvous(processes, coordinator, reserved_port, connections)


def _connect_to_primary(
    processes: ProcessGroup, read_address: Callable[[], str | None], deadline: float
) -> Rendezvous:
    """Connect to process 0, and wait until it reports that all are connected."""
    while (remaining_seconds := deadline - time.monotonic()) > 0:
        address = read_address()
        if address:
            with contextlib.suppress(OSError):
                host, _, port = address.rpartition(":")
                connection = socket.create_connection((host, int(port)), timeout=remaining_seconds)
                _send(connection, {"start": processes.launch_id, "index": processes.index})
                answer = _receive(connection)
                if answer:
                    connection.settimeout(None)
                    return Rendezvous(processes, answer["coordinator"], None, {0: connection})
                connection.close()
        time.sleep(RETRY_SECONDS)
    raise MissingProcesses(
        f"process 0 of {processes.count} was not reachable within {processes.join_timeout_seconds:g} s"
    )


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket) -> dict[str, Any] | None:
    """Receive one message; None if the connection ended or the message is invalid."""
    line = b""
    try:
        while not line.endswith(b"\n"):
            byte = connection.recv(1)  # further bytes belong to the next message
            if not byte:
                return None
            line += byte
        message = json.loads(line)
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None
