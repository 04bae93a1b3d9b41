"""A claim excludes others for as long as its holder lives."""

from __future__ import annotations

import subprocess
import sys
import time

from harness.records.run.run_lock import acquire, owner, release
from harness.records.run.status import ProcessInfo


class TestClaim:
    def test_a_claim_excludes_others_until_its_holder_dies_however(self, tmp_path):
        path = tmp_path / "lock"
        code = (
            "import sys, time; from pathlib import Path; from harness.records.run.run_lock import acquire;"
            "print(acquire(Path(sys.argv[1])), flush=True); time.sleep(60)"
        )
        other = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert acquire(path, wait_seconds=0.0) is False
        assert owner(path) == ProcessInfo.from_pid(other.pid)
        other.kill()
        other.communicate()
        assert owner(path) is None
        assert acquire(path) is True
        release(path)

    def test_a_claim_is_repeatable_and_can_be_given_back(self, tmp_path):
        assert acquire(tmp_path / "a")
        assert acquire(tmp_path / "a")
        assert owner(tmp_path / "a") == ProcessInfo.current()
        release(tmp_path / "a")
        assert owner(tmp_path / "a") is None

    def test_a_reader_does_not_spoil_a_claim(self, tmp_path):
        """Claims wait a moment, since a reader tests by locking."""
        path = tmp_path / "lock"
        path.touch()
        code = (
            "import sys, time; from pathlib import Path; from harness.records.run.run_lock import owner\n"
            "end = time.monotonic() + 3\n"
            "while time.monotonic() < end: owner(Path(sys.argv[1]))"
        )
        reader = subprocess.Popen([sys.executable, "-c", code, str(path)])
        try:
            for _ in range(20):
                assert acquire(path)
                release(path)
                time.sleep(0.05)
        finally:
            reader.kill()
            reader.communicate()

    def test_nobody_holds_what_is_not_there(self, tmp_path):
        assert owner(tmp_path / "none") is None
