"""The first moments of the command: Ctrl-C before its modules are there, the shell's encoding and umask."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from harness.core import atomic_files
from harness.core.errors import UserError, disk_error
from harness.records.run.run_lock import acquire, release
from harness.records.sweep.find_sweep import find_sweep
from tests.cli.support import clean_env

INTERRUPTED_IMPORT = """
import sys
from harness.__main__ import main

class Interrupting:
    def find_spec(self, name, *_):
        if name == "harness.cli.exit_status":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
sys.exit(main())
"""
OTHER_ENCODING = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_ctrl_c_while_the_command_is_imported_is_no_traceback():
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, "compare", "x"]
    done = subprocess.run(command, env=clean_env(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "Stopped.\n")


def test_in_a_shell_of_another_encoding_paths_are_utf_8(tmp_path):
    """Of a folder and a value with letters that ASCII lacks, in a terminal that lacks them too."""
    folder = tmp_path / "été"
    folder.mkdir()
    path = "data.sources.own.path='naïve.txt'"
    shown = _in_other_encoding(folder, "sweep", "--cfg", "job", "data=own", path, "variant=mha", "scale=xs")
    assert shown.returncode == 0, shown.stderr
    assert rb"path: na\xefve.txt" in shown.stdout, "in the terminal's letters"
    shown = _in_other_encoding(folder, "compare", "runs/été")
    assert (shown.returncode, shown.stderr.split(b";")[0]) == (2, rb"runs/\xe9t\xe9 is not a sweep")


def _in_other_encoding(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command, env = [sys.executable, "-P", "-m", "harness", *arguments], clean_env(**OTHER_ENCODING)
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False)


@pytest.mark.parametrize(("umask", "mode"), [(0o777, 0o600), (0o277, 0o600), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_about_others_and_never_shuts_ourselves_out(tmp_path, umask, mode):
    """So a team with umask 002 continues each other's sweeps: locks too can be taken by all of it."""
    before = os.umask(umask)
    try:
        atomic_files.keep_own_access()
        atomic_files.write_json(tmp_path / "new" / "a.json", {})
        assert acquire(tmp_path / "new" / "a.lock")
    finally:
        os.umask(before)
        release(tmp_path / "new" / "a.lock")
    for name in ("a.json", "a.lock"):
        assert stat.S_IMODE((tmp_path / "new" / name).stat().st_mode) == mode


def test_what_is_private_is_so_under_any_umask(tmp_path):
    before = os.umask(0)
    try:
        atomic_files.write_checksummed_json(tmp_path / "a.json", {"secret": "s"}, private=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o600


def test_remote_workers_get_the_umask_of_the_driver(monkeypatch):
    before = os.umask(0o027)
    try:
        monkeypatch.setenv(atomic_files.UMASK_VARIABLE, "002")
        atomic_files.keep_own_access()
        assert atomic_files.umask() == 0o002
    finally:
        os.umask(before)


def test_a_file_of_another_user_is_asked_for(tmp_path):
    lock = tmp_path / "driver.lock"
    lock.touch()
    error = disk_error(PermissionError(errno.EACCES, "Permission denied", str(lock)), tmp_path)
    assert str(error).startswith(f"{lock}: Permission denied. Ask its owner to share it (chmod, or a umask")
    error = disk_error(PermissionError(errno.EACCES, "Permission denied", str(tmp_path)), tmp_path)
    assert str(error).endswith("Choose a writable folder with runs=...")


def test_a_folder_that_is_not_shared_is_no_mistyped_path(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="cannot be read: its owner has not shared it"):
        find_sweep(tmp_path)
