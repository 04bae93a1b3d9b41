"""Processes that find each other, as threads: what they say goes through real sockets."""

from __future__ import annotations

import queue
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from harness.config.process_group import ProcessGroup
from harness.parallel.processes.rendezvous import MissingProcesses, Rendezvous, connect_processes

HERE = ProcessGroup(3, "now", "127.0.0.1", join_timeout_seconds=10)


class Place:
    """Where process 0 says where it is."""

    def __init__(self, address: str | None = None):
        self.address = address

    def say(self, address: str) -> None:
        self.address = address

    def ask(self) -> str | None:
        return self.address


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
        stale = f"127.0.0.1:{gone.getsockname()[1]}"
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
