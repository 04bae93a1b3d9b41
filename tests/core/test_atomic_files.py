"""A file is the old one or the new one, whole, and says when a bit of it flipped."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core import atomic_files
from tests.records.scratch import few, fresh


def forked(action) -> int:
    """Run in a child; its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class TestAtomic:
    @pytest.mark.parametrize("moment", ["fsync", "replace"])
    def test_a_kill_leaves_the_old_file_whole(self, tmp_path, monkeypatch, moment):
        path = tmp_path / "a.json"
        atomic_files.write_json(path, {"old": 1})
        target = os if moment == "fsync" else Path
        monkeypatch.setattr(target, moment, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        assert forked(lambda: atomic_files.write_json(path, {"new": 2})) == -signal.SIGKILL
        assert atomic_files.read_json(path) == {"old": 1}

    def test_what_failed_leaves_no_litter(self, tmp_path, monkeypatch):
        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            atomic_files.write_text(tmp_path / "a", "x")
        assert [*tmp_path.iterdir()] == []

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": 1'])
    def test_unreadable_json_is_none(self, tmp_path, content):
        (tmp_path / "a").write_bytes(content)
        assert atomic_files.read_json(tmp_path / "a") is None

    def test_a_missing_file_is_none(self, tmp_path):
        assert atomic_files.read_json(tmp_path / "a") is None
        (tmp_path / "file").touch()
        assert atomic_files.read_json(tmp_path / "file" / "below") is None


class TestSealed:
    @given(st.dictionaries(st.text(max_size=8), st.integers() | st.floats(allow_nan=False)), st.data())
    @few
    def test_a_flipped_bit_changes_nothing_that_is_read(self, content, data):
        path = fresh() / "a.json"
        content.pop("checksum", None)
        atomic_files.write_checksummed_json(path, content)
        assert atomic_files.read_checksummed_json(path) == content
        damaged = bytearray(path.read_bytes())
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(damaged)
        found = atomic_files.read_checksummed_json(path)
        assert found is None or found.items() >= content.items()

    def test_a_file_of_an_earlier_version_has_no_seal(self, tmp_path):
        atomic_files.write_json(tmp_path / "a.json", {"state": "finished"})
        assert atomic_files.read_checksummed_json(tmp_path / "a.json") == {"state": "finished"}
