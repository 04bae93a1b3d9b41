"""What a run says of itself, and whether who wrote it lives."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from hypothesis import given
from hypothesis import strategies as st

from harness.core import atomic_files
from harness.records.paths import RunDir
from harness.records.run.status import ProcessInfo, State, Status, read_status, write_status
from tests.records.scratch import few, fresh


class TestStatus:
    def test_it_comes_back(self, tmp_path):
        counts = 3, 9, 27
        status = Status(
            State.running, *counts, "train", "tokenises", 5, 2, 1.5, 100.0, "m", ProcessInfo.current()
        )
        write_status(RunDir(tmp_path), status)
        assert read_status(RunDir(tmp_path)) == status

    @given(st.binary(max_size=40))
    @few
    def test_any_damage_reads_as_pending(self, content):
        run = RunDir(fresh())
        run.status.write_bytes(content)
        assert read_status(run) == Status()

    def test_fields_of_a_later_version_are_passed_over(self, tmp_path):
        atomic_files.write_json(tmp_path / "status.json", {"state": "finished", "mood": "good"})
        assert read_status(RunDir(tmp_path)).state is State.finished


class TestWriter:
    def test_this_process_is_alive(self):
        assert ProcessInfo.current().alive() is True

    def test_a_process_that_ended_is_not_nor_is_a_zombie(self):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        writer = ProcessInfo.from_pid(child.pid)
        assert writer.alive() is True
        child.kill()
        deadline = time.monotonic() + 10
        while writer.alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert writer.alive() is False, "a zombie counts as alive"
        child.communicate()
        assert writer.alive() is False

    def test_a_process_id_that_was_given_away_again_is_not_the_writer(self):
        assert ProcessInfo(ProcessInfo.current().host, os.getpid(), "boot:1").alive() is False

    def test_another_host_has_to_be_asked(self):
        assert ProcessInfo("elsewhere", 1, "x").alive() is None
