"""Exit status of the command when its reader leaves, on Ctrl-C, and without a folder to work in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import cli
from harness.cli.exit_status import exit_status
from tests.cli.support import clean_env, run, start
from tests.compare.synthetic import write_sweep

PLAN = ("plan", "variant=mha", "scale=xs")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("runs") / "trial").path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"], ["--version"], *([verb, "--help"] for verb in cli.VERBS),
        ["compare", "SWEEP"], ["compare", "SWEEP", "--json"], ["compare", "SWEEP", "--markdown"],
        ["watch", "SWEEP"], ["stop", "SWEEP"], [*PLAN], [*PLAN, "--json"], ["sweep", "--cfg", "job"],
        ["sweep", "--dry-run", "variant=mha", "seed=0"], ["no_such_verb"],
    ],
)  # fmt: skip
def test_a_reader_that_leaves_ends_the_command_in_silence(arguments, sweep, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    words = [str(sweep) if word == "SWEEP" else word for word in arguments]
    command = [sys.executable, "-m", "harness", *words]
    errors = writer if arguments == ["no_such_verb"] else subprocess.PIPE
    done = subprocess.run(command, cwd=tmp_path, env=clean_env(), stdout=writer, stderr=errors, check=False)
    os.close(writer)
    assert done.returncode == 128 + signal.SIGPIPE
    assert not done.stderr


@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_ctrl_c_in_the_first_seconds_is_no_traceback(seconds, tmp_path):
    """Of a sweep, whose driver imports no JAX: a callback of JAX's may swallow the interrupt of `train`."""
    process = start("sweep", "scale=xs", "variant=mha", folder=tmp_path)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.startswith("Stopped.")
    assert err.count("\n") == 1


def test_an_error_that_an_interruption_causes_is_an_interruption(capsys):
    def call() -> int:
        try:
            raise KeyboardInterrupt
        finally:
            [].pop()

    assert exit_status(call, "runs") == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_an_error_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda: 1 // 0, "runs")


def test_a_deleted_folder_is_one_sentence(sweep, tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    code = "import os, sys; os.rmdir(os.getcwd()); from harness.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "compare", str(sweep)]
    done = subprocess.run(command, cwd=folder, env=clean_env(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "The current folder was deleted. Change to one that exists.\n"


def test_a_home_that_does_not_exist_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    home = str(tmp_path / "file" / "home")  # not even root can create it
    for arguments in (PLAN, ("sweep", "--dry-run", "scale=xs"), ("train", "scale=xs")):
        code, _, err = run(*arguments, folder=tmp_path, HOME=home, AB_HARNESS_CACHE="")
        assert code == 2
        assert err.startswith(f"{home}/.cache/ab-harness: the cache folder cannot be used (Not a directory)")
        assert "AB_HARNESS_CACHE=FOLDER" in err
        assert err.count("\n") == 1
