"""Processes that find each other, as threads: what they say goes through real sockets."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from harness.config.process_group import ProcessGroup
from harness.parallel.processes.rendezvous import (
    MeetingPoint,
    MissingProcesses,
    Rendezvous,
    connect_processes,
)

HERE = ProcessGroup(3, "now", "127.0.0.1", join_timeout_seconds=10)


class Place:
    """Where process 0 says where it is."""

    def __init__(self, point: MeetingPoint | None = None):
        self.point = point

    def say(self, point: MeetingPoint) -> None:
        self.point = point

    def ask(self) -> MeetingPoint | None:
        return self.point


def assembled(*each: ProcessGroup, place: Place | None = None) -> list[Rendezvous]:
    place = place or Place()
    with ThreadPoolExecutor(len(each)) as pool:
        met = [pool.submit(connect_processes, one, place.say, place.ask) for one in each]
        return [one.result() for one in met]


def three(place: Place | None = None) -> list[Rendezvous]:
    return assembled(*(replace(HERE, index=index) for index in range(3)), place=place)


def leave(meeting: Rendezvous) -> None:
    """As a process that ends, however it ends."""
    for connection in meeting.connections.values():
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def heard(connection: socket.socket) -> bytes:
    """Everything that the other end said before it hung up."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(4096):
            answer += part
    return answer


def test_all_are_told_one_port_that_is_held_for_jax():
    meetings = three()
    addresses = {meeting.coordinator for meeting in meetings}
    assert len(addresses) == 1
    host, _, port = addresses.pop().rpartition(":")
    assert host == "127.0.0.1"
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("", int(port)))
    with socket.socket() as coordinator:  # as gRPC does
        coordinator.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        coordinator.bind(("", int(port)))


def test_meetings_at_a_time_have_ports_of_their_own():
    found = [three()[0].coordinator for _ in range(5)]
    assert len(set(found)) == 5


def test_the_address_of_an_earlier_start_is_passed_over():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        stale = MeetingPoint(f"127.0.0.1:{gone.getsockname()[1]}", "of before")
    assert len(three(Place(stale))) == 3


def test_one_of_another_start_is_not_let_in():
    place = Place()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(connect_processes, replace(HERE, count=2), place.say, place.ask)
        stranger = replace(HERE, count=2, index=1, launch_id="before", join_timeout_seconds=0.5)
        with pytest.raises(MissingProcesses, match=r"process 0 of 2 was not reachable within 0\.5 s"):
            connect_processes(stranger, place.say, place.ask)
        connect_processes(replace(HERE, count=2, index=1), place.say, place.ask)
        assert len(first.result().connections) == 1


def test_one_that_does_not_know_the_secret_is_not_let_in():
    """Not with a guessed secret, nor with what it heard of another's greeting, nor by talking on."""
    place = Place()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(connect_processes, replace(HERE, count=2), place.say, place.ask)
        while place.point is None:
            pass
        guess = replace(place.point, secret="guess")
        stranger = replace(HERE, count=2, index=1, join_timeout_seconds=0.3)
        with pytest.raises(MissingProcesses):
            connect_processes(stranger, place.say, lambda: guess)
        port = int(place.point.address.rpartition(":")[2])
        for greeting in (b'{"index": 1, "proof": null}\n', b'{"index": true}\n', b"[" * 70_000 + b"\n"):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(greeting)
                answer = heard(connection)
                assert b"coordinator" not in answer
                assert place.point.secret.encode() not in answer
        connect_processes(replace(HERE, count=2, index=1), place.say, place.ask)
        assert len(first.result().connections) == 1


def test_a_stranger_at_the_address_of_process_0_is_not_believed():
    """It accepts whoever comes and names a coordinator of its own, as a later user of the port could."""
    greeting = b'{"challenge": "c"}\n{"coordinator": "10.6.6.6:1", "proof": "p"}\n{"all": "here"}\n'
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        point = MeetingPoint(f"127.0.0.1:{server.getsockname()[1]}", "secret")
        visitor = replace(HERE, index=1, join_timeout_seconds=0.5)
        visit = pool.submit(connect_processes, visitor, lambda _: None, lambda: point)
        connection, _ = server.accept()
        connection.sendall(greeting)
        with pytest.raises(MissingProcesses):
            visit.result()
        connection.close()


LISTENERS = """
import jax, re, sys
from pathlib import Path
from harness.parallel.processes.jax_distributed import initialize_single
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
initialize_single(2)
assert jax.device_count() == 2
links = " ".join(str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
inodes = set(re.findall(r"socket:\\[(\\d+)\\]", links))
for name in ("tcp", "tcp6"):
    for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            print(fields[1].partition(":")[0])
"""


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="asks Linux who listens")
def test_on_one_machine_coordinator_and_collectives_listen_on_loopback_alone():
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    done = subprocess.run(
        [sys.executable, "-c", LISTENERS], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    addresses = re.findall(r"^[0-9A-F]{8,}$", done.stdout, re.MULTILINE)
    assert len(addresses) >= 2, "the coordinator and the collectives"
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}  # each word of 32 bits from its end
    assert {*addresses} <= loopback


def test_processes_of_several_machines_can_reach_process_0():
    place = Place()
    with ThreadPoolExecutor(1) as pool:
        visitor = replace(HERE, count=2, index=1, host="localhost.example")
        pool.submit(connect_processes, replace(visitor, index=0), place.say, place.ask)
        while place.point is None:
            pass
        point = replace(place.point, address=place.point.address.replace("localhost.example", "127.0.0.2"))
        assert connect_processes(visitor, place.say, lambda: point).coordinator.startswith(
            "localhost.example"
        )


def test_who_does_not_come_is_named():
    place = Place()
    with ThreadPoolExecutor(1) as pool:
        coming = replace(HERE, index=2, join_timeout_seconds=0.6)
        pool.submit(connect_processes, coming, place.say, place.ask)
        with pytest.raises(MissingProcesses, match=r"process 1 of 3 did not connect within 0\.4 s"):
            connect_processes(replace(HERE, join_timeout_seconds=0.4), place.say, place.ask)


def test_an_end_is_noticed_by_the_others_with_its_last_words():
    meetings = three()
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    meetings[0].watch_peers(told.put)
    leave(meetings[2])
    assert told.get(timeout=5) == "process 2 of 3 ended"
    meetings[1].announce_failure("disk full")
    assert told.get(timeout=5) == "process 1 of 3 ended: disk full"


def test_an_end_that_is_expected_is_not():
    meetings = assembled(*(replace(HERE, count=2, index=index) for index in range(2)))
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    meetings[0].watch_peers(told.put)
    meetings[0].closing = True
    leave(meetings[1])
    with pytest.raises(queue.Empty):
        told.get(timeout=0.3)
