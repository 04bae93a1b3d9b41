"""Rendezvous of a run's processes, and immediate detection of a lost one.

Process 0 listens on a free port and publishes it with a new secret; the others connect and stay connected.
Both ends prove that they know the secret, which itself is never sent. When all have connected, process 0
sends the port of JAX's coordinator. It has reserved that port from the start: bound with
SO_REUSEPORT and never listening, so that no other program gets it, while gRPC, which sets the same option,
can bind it too. A computed port (JAX takes 61440 + job number % 4096) is unsafe: with that option a second
coordinator of the same user binds it without an error, and two runs mix.

The connections stay open because the system closes those of a killed peer at once. JAX's heartbeats need
their timeout to notice, and then abort the process before it can report anything. Imports no JAX.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import json
import secrets
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
MAX_MESSAGE_BYTES = 1 << 16
"""Length of a message above which a connection is given up."""


class MissingProcesses(Exception):
    """Raised when processes did not connect in time; the message names them."""


@dataclass(frozen=True)
class MeetingPoint:
    """Place where process 0 waits for the others."""

    address: str
    """Address host:port."""
    secret: str
    """Text that the processes of this start alone know, new at each start."""


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
    processes: ProcessGroup,
    publish: Callable[[MeetingPoint], None],
    read_point: Callable[[], MeetingPoint | None],
) -> Rendezvous:
    """Connect all processes and return when every one has connected. Raises MissingProcesses.

    `publish` shares the point of process 0 with the others and with nobody else; `read_point` reads it (None:
    not yet). A point read may be of an earlier start: then nobody listens there, or the listener rejects this
    start.
    """
    deadline = time.monotonic() + processes.join_timeout_seconds
    if processes.index == 0:
        return _accept_all(processes, publish, deadline)
    return _connect_to_primary(processes, read_point, deadline)


def is_loopback(host: str) -> bool:
    """Return whether a host is an address of this machine that no other machine can reach."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _accept_all(
    processes: ProcessGroup, publish: Callable[[MeetingPoint], None], deadline: float
) -> Rendezvous:
    """Accept all other processes, in process 0. It listens on loopback alone if they reach it there."""
    host, secret = processes.host or socket.gethostname(), secrets.token_hex()
    interface = host if is_loopback(host) else ""
    reserved_port = socket.socket()
    reserved_port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved_port.bind((interface, 0))
    coordinator = f"{host}:{reserved_port.getsockname()[1]}"
    with socket.create_server((interface, 0), backlog=processes.count) as server:
        publish(MeetingPoint(f"{host}:{server.getsockname()[1]}", secret))
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
            index = _greet(connection, processes, secret, coordinator)
            if index is None:
                connection.close()
            else:
                connections[index] = connection
    for connection in connections.values():
        _send(connection, {"all": "here"})
    return Rendezvous(processes, coordinator, reserved_port, connections)


def _greet(connection: socket.socket, processes: ProcessGroup, secret: str, coordinator: str) -> int | None:
    """Let a process of this start identify itself, and prove to it who we are. Returns its index; None for
    anybody else."""
    challenge = secrets.token_hex()
    with contextlib.suppress(OSError):
        _send(connection, {"challenge": challenge})
        hello = _receive(connection, HELLO_SECONDS) or {}
        index, proof = hello.get("index"), hello.get("proof")
        if type(index) is not int or not 0 < index < processes.count:
            return None
        expected = _prove(secret, "join", challenge, processes.launch_id, index)
        if not isinstance(proof, str) or not hmac.compare_digest(proof.encode(), expected.encode()):
            return None
        proof = _prove(secret, "coordinator", hello.get("challenge"), coordinator)
        _send(connection, {"coordinator": coordinator, "proof": proof})
        return index
    return None


def _connect_to_primary(
    processes: ProcessGroup, read_point: Callable[[], MeetingPoint | None], deadline: float
) -> Rendezvous:
    """Connect to process 0, and wait until it reports that all are connected."""
    while deadline > time.monotonic():
        if point := read_point():
            with contextlib.suppress(OSError):
                host, _, port = point.address.rpartition(":")
                connection = socket.create_connection((host, int(port)), deadline - time.monotonic())
                coordinator = _join(connection, processes, point.secret, deadline)
                if coordinator:
                    return Rendezvous(processes, coordinator, None, {0: connection})
                connection.close()
        time.sleep(RETRY_SECONDS)
    raise MissingProcesses(
        f"process 0 of {processes.count} was not reachable within {processes.join_timeout_seconds:g} s"
    )


def _join(connection: socket.socket, processes: ProcessGroup, secret: str, deadline: float) -> str | None:
    """Identify this process to process 0, and wait until all have connected. Returns the coordinator's
    address; None if the other end is not process 0 of this start."""
    patience = min(HELLO_SECONDS, deadline - time.monotonic())
    question = _receive(connection, patience)
    if question is None:
        return None
    challenge = secrets.token_hex()
    proof = _prove(secret, "join", question.get("challenge"), processes.launch_id, processes.index)
    _send(connection, {"index": processes.index, "challenge": challenge, "proof": proof})
    answer = _receive(connection, patience) or {}
    coordinator, proof = answer.get("coordinator"), str(answer.get("proof"))
    expected = _prove(secret, "coordinator", challenge, coordinator)
    if not hmac.compare_digest(proof.encode(), expected.encode()):
        return None
    return coordinator if _receive(connection, deadline - time.monotonic()) else None


def _prove(secret: str, *statement: object) -> str:
    """Return the proof that whoever makes a statement knows the secret."""
    return hmac.new(secret.encode(), json.dumps(statement).encode(), hashlib.sha256).hexdigest()


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket, seconds: float | None = None) -> dict[str, Any] | None:
    """Receive one message; None if the connection ended, the message is invalid, or the time is over."""
    line, deadline = b"", None if seconds is None else time.monotonic() + seconds
    try:
        while not line.endswith(b"\n"):
            connection.settimeout(None if deadline is None else max(deadline - time.monotonic(), 1e-3))
            byte = connection.recv(1)  # further bytes belong to the next message
            if not byte or len(line) > MAX_MESSAGE_BYTES:
                return None
            line += byte
        connection.settimeout(None)
        message = json.loads(line)
    except (OSError, ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None
