"""How the processes of a run find each other, and notice at once when one of them is gone.

Process 0 listens on a port that the system gives it and says where; the others come and stay connected.
Only when all have come does it name the port of JAX's coordinator, which it holds from the beginning: bound
with SO_REUSEPORT and never listening, so that nobody else is given it, while gRPC, which sets the same
option, can bind it too. A port that is computed (JAX takes 61440 + job number % 4096) will not do: by that
option a second coordinator of the same user binds it as well, without an error, and two runs mix.

The connections remain because a killed peer closes its own in no time. JAX's heartbeats take their timeout
to see it, and then abort the process before it can say anything. Knows no JAX.
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
"""Seconds for which an error waits to be explained by the end of another process."""
HELLO_SECONDS = 5.0
"""Seconds in which one who comes says who it is."""


class MissingProcesses(Exception):
    """Not all processes came in time; the message says which."""


@dataclass
class Rendezvous:
    """Open while its processes train together."""

    processes: ProcessGroup
    coordinator: str
    """host:port for `jax.distributed.initialize`, the same in every process."""
    reserved_port: socket.socket | None
    """What holds that port, in process 0."""
    connections: Mapping[int, socket.socket]
    """By index: of process 0 all others, of any other process 0 alone."""
    closing: bool = False
    """Ends are expected."""
    failing: bool = False
    """This process ends for a reason of its own."""

    def watch_peers(self, on_exit: Callable[[str], None]) -> None:
        """From now on `gone` is called, in a thread, with a sentence on the first process that ended."""
        for index, connection in self.connections.items():
            threading.Thread(target=self._listen, args=(index, connection, on_exit), daemon=True).start()

    def announce_failure(self, reason: str) -> None:
        """Last words to the others: this process ends for a reason of its own."""
        self.failing = True
        for connection in self.connections.values():
            with contextlib.suppress(OSError):
                _send(connection, {"why": reason})

    def _listen(self, index: int, connection: socket.socket, on_exit: Callable[[str], None]) -> None:
        words = _receive(connection)
        if words:
            time.sleep(GRACE_SECONDS)  # what befell all is each one's own to tell
        if not self.closing and not (words and self.failing):
            why = f": {words['why']}" if words else ""
            on_exit(f"process {index} of {self.processes.count} ended{why}")


def connect_processes(
    processes: ProcessGroup, publish: Callable[[str], None], read_address: Callable[[], str | None]
) -> Rendezvous:
    """Returns when all have come. `say` tells the others where process 0 is, `ask` reads it (None: not yet).

    What `ask` returns may be of an earlier start: nobody listens there any more, or does not know ours.
    Raises Absent.
    """
    deadline = time.monotonic() + processes.arrive_seconds
    return (
        _accept_all(processes, publish, deadline)
        if processes.index == 0
        else _connect_to_primary(processes, read_address, deadline)
    )


def _accept_all(processes: ProcessGroup, publish: Callable[[str], None], deadline: float) -> Rendezvous:
    """Process 0: until all others are here."""
    host = processes.host or socket.gethostname()
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("", 0))
    with socket.create_server(("", 0), backlog=processes.count) as server:
        publish(f"{host}:{server.getsockname()[1]}")
        others: dict[int, socket.socket] = {}
        while len(others) < processes.count - 1:
            connection = _accept(server, deadline)
            if connection is None:
                missing = [str(each) for each in range(1, processes.count) if each not in others]
                raise MissingProcesses(
                    f"of {processes.count} processes {', '.join(missing)} did not come within"
                    f" {processes.arrive_seconds:g} s"
                )
            connection.settimeout(HELLO_SECONDS)
            hello = _receive(connection)
            connection.settimeout(None)
            if hello and hello.get("start") == processes.start:
                others[hello["index"]] = connection
            else:
                connection.close()
    coordinator = f"{host}:{held.getsockname()[1]}"
    for connection in others.values():
        _send(connection, {"coordinator": coordinator})
    return Rendezvous(processes, coordinator, held, others)


def _connect_to_primary(
    processes: ProcessGroup, read_address: Callable[[], str | None], deadline: float
) -> Rendezvous:
    """Any other process: until process 0 says that all are here."""
    while (left := deadline - time.monotonic()) > 0:
        address = read_address()
        if address:
            with contextlib.suppress(OSError):
                host, _, port = address.rpartition(":")
                connection = socket.create_connection((host, int(port)), timeout=left)
                _send(connection, {"start": processes.start, "index": processes.index})
                answer = _receive(connection)
                if answer:
                    connection.settimeout(None)
                    return Rendezvous(processes, answer["coordinator"], None, {0: connection})
                connection.close()
        time.sleep(RETRY_SECONDS)
    raise MissingProcesses(
        f"process 0 of {processes.count} was not there within {processes.arrive_seconds:g} s"
    )


def _accept(server: socket.socket, deadline: float) -> socket.socket | None:
    """None when the time is over."""
    server.settimeout(max(deadline - time.monotonic(), 0.001))
    try:
        connection, _ = server.accept()
    except TimeoutError:
        return None
    return connection


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket) -> dict[str, Any] | None:
    """One message; None where the connection ended instead, or what came is none of ours."""
    line = b""
    try:
        while not line.endswith(b"\n"):
            piece = connection.recv(1)  # what follows is the next message
            if not piece:
                return None
            line += piece
        message = json.loads(line)
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None
