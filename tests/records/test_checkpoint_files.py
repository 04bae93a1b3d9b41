"""What was verified and has not changed is not read again; what changed is, and so is what is restored."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from harness.core import atomic_files
from harness.records.paths import RunDir
from harness.records.run import checkpoint_files
from harness.records.run.checkpoint_manifest import corruption_reason
from tests.records.test_checkpoint_manifest import checkpointed


@pytest.fixture
def read(monkeypatch, tmp_path) -> list[str]:
    """Names of the files that were hashed, in a cache of its own."""
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checkpoint_files, "REMEMBER_BYTES", 1)
    names, real = [], atomic_files.file_sha256
    monkeypatch.setattr(atomic_files, "file_sha256", lambda path: (names.append(path.name), real(path))[1])
    return names


def reason(run: RunDir, trust_memory: bool = True) -> str | None:
    return corruption_reason(run, 3, trust_memory=trust_memory)


def test_a_saved_checkpoint_is_hashed_once(read):
    run = checkpointed()
    assert sorted(read) == ["meta", "weights"]
    assert reason(run) is None
    assert len(read) == 2


def test_a_checkpoint_that_is_restored_is_read_to_the_last_byte(read):
    run = checkpointed()
    assert reason(run, trust_memory=False) is None
    assert len(read) == 4


def test_a_small_checkpoint_is_read_each_time(read, monkeypatch):
    monkeypatch.setattr(checkpoint_files, "REMEMBER_BYTES", 2**24)
    run = checkpointed()
    assert reason(run) is None
    assert len(read) == 4


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_changed_file_is_seen_even_with_its_old_time(read, keep_time):
    """Time of modification and size can be kept by a writer, the time of change cannot."""
    run = checkpointed()
    path = run.checkpoint(3) / "d" / "weights"
    before = path.stat()
    time.sleep(0.02)  # the kernel's clock of files ticks every 4 ms
    with path.open("r+b") as file:
        file.write(b"x")
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert str(path) in str(reason(run))
    assert str(path) in str(reason(run)), "what is damaged stays so"


def test_a_replaced_file_and_a_copied_checkpoint_are_read(read, tmp_path):
    run = checkpointed()
    path = run.checkpoint(3) / "meta"
    shutil.copy2(path, tmp_path / "copy")
    (tmp_path / "copy").replace(path)
    assert reason(run) is None
    assert len(read) == 4
    shutil.copytree(run.path, tmp_path / "other")
    assert reason(RunDir(tmp_path / "other")) is None
    assert len(read) == 6


def test_bits_that_a_disk_lost_are_seen_before_a_restore_and_then_remembered(read, monkeypatch):
    """A disk changes bits, but no times."""
    run = checkpointed()
    monkeypatch.setattr(atomic_files, "file_sha256", lambda path: "0" * 64)
    assert reason(run) is None
    assert "does not match" in str(reason(run, trust_memory=False))
    assert "does not match" in str(reason(run)), "memory has forgotten it"


def test_a_forged_memory_is_not_believed(read, tmp_path):
    run = checkpointed()
    for entry in (tmp_path / "cache" / "verified").iterdir():
        content = bytearray(entry.read_bytes())
        content[-5] ^= 1
        entry.write_bytes(content)
    assert reason(run) is None
    assert len(read) == 4


def test_a_cache_that_cannot_be_used_remembers_nothing(read, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "file"))
    run = checkpointed()
    assert reason(run) is None
    assert len(read) == 4
