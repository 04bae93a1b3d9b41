"""A host compiles as many programs at once as it has cores and memory for, and each of them once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.training.programs import compile_cache

CPU = SimpleNamespace(platform="cpu")


@pytest.fixture
def peak(monkeypatch, tmp_path):
    """A function that compiles programs in threads of their own, and returns how many were at it at once."""
    monkeypatch.setattr(compile_cache, "host_dir", lambda: tmp_path)
    monkeypatch.setattr(compile_cache.os, "sched_getaffinity", lambda _: {0, 1, 2})

    def compile_all(names: list[str], device: SimpleNamespace, free_bytes: float) -> int:
        monkeypatch.setattr(compile_cache, "free_memory", lambda: free_bytes)
        at_work, most, guard = 0, 0, threading.Lock()

        def compile_one(name: str) -> None:
            nonlocal at_work, most
            entry = SimpleNamespace(path=Path(f"step-{name}.bin"))
            with compile_cache._hold_compile("step", entry, [device]):  # type: ignore[arg-type]
                with guard:
                    at_work += 1
                    most = max(most, at_work)
                time.sleep(0.3)
                with guard:
                    at_work -= 1

        threads = [threading.Thread(target=compile_one, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return most

    return compile_all


DIFFERENT = ["a1", "b2", "c3", "d4", "e5"]


def test_as_many_as_cores(peak):
    assert peak(DIFFERENT, CPU, 1e12) == 3


def test_as_many_as_memory_holds(peak):
    assert peak(DIFFERENT[:3], CPU, 1e9) == 1


def test_the_same_program_never_twice_at_once(peak):
    assert peak(["a1"] * 3, CPU, 1e12) == 1


def test_another_compiler_has_no_limit_of_this_host(peak):
    assert peak(DIFFERENT, SimpleNamespace(platform="tpu"), 1e12) == 5
