"""What the processes of a run agree on, with a coordinator made of a dictionary."""

from __future__ import annotations

import jax
import pytest

from harness.parallel.processes import agreement
from harness.parallel.processes.agreement import ANNOUNCE_STEPS, SaveClock


class Store(dict[str, str]):
    """The key-value store of JAX's coordinator."""

    def key_value_set(self, key: str, value: str) -> None:
        """Set a key."""
        self[key] = value

    def key_value_try_get(self, key: str) -> str:
        """Return a value. Raises what JAX raises without one."""
        if key not in self:
            raise jax.errors.JaxRuntimeError("NOT_FOUND")
        return self[key]


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The clock of this process, in seconds."""
    clock = [0.0]
    monkeypatch.setattr(agreement.time, "monotonic", lambda: clock[0])
    return clock


def test_one_process_saves_once_the_minutes_have_passed(now):
    clock = SaveClock(minutes=1)
    assert not clock.should_save_after(1)
    now[0] = 60.0
    assert [clock.should_save_after(step) for step in (2, 3)] == [True, False]
    now[0] = 121.0
    assert clock.should_save_after(4)


def test_without_minutes_the_clock_asks_for_nothing(now):
    clock = SaveClock(None)
    now[0] = 1e9
    assert not clock.should_save_after(1)


def test_all_processes_save_after_the_step_that_the_first_announces(now, monkeypatch):
    store = Store()
    monkeypatch.setattr(agreement, "coordination_client", lambda: store)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    clocks = []
    for _ in range(2):  # each process counts its own agreements, alike
        monkeypatch.setattr(agreement, "_numbers", iter([7]))
        clocks.append(SaveClock(minutes=1))
    saved: tuple[list[int], list[int]] = ([], [])
    for step in range(1, 12):
        now[0] += 15.0
        for index, clock in enumerate(clocks):
            monkeypatch.setattr(agreement, "is_primary", lambda index=index: index == 0)
            if clock.should_save_after(step):
                saved[index].append(step)
    first = 4 + ANNOUNCE_STEPS
    assert saved == ([first], [first])
