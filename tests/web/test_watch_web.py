"""`harness watch --web` as a command."""

from __future__ import annotations

import os
import signal
import urllib.request
from pathlib import Path

import pytest

from harness.cli import main
from tests.cli import support
from tests.web.simulated_sweep import SimulatedSweep


def test_it_serves_until_ctrl_c_a_sweep_that_has_not_begun_too(tmp_path: Path):
    process = support.start("watch", "runs/trial", "--web", folder=tmp_path)
    assert process.stdout
    process.stdout.readline()  # it is ready
    url = process.stdout.readline().strip()
    assert process.stdout.readline().endswith("Ctrl-C ends it.\n")
    with urllib.request.urlopen(url) as answer:
        assert b"<title>sweep</title>" in answer.read()
    SimulatedSweep(tmp_path / "runs" / "trial")
    with urllib.request.urlopen(f"{url}events") as stream:
        text = ""
        while "12 runs, 0% done" not in text:
            text = stream.readline().decode()
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, "", "")


@pytest.mark.parametrize("option", [["--port", "8600"], ["--open"]])
def test_options_of_the_page_go_with_it(option: list[str], capsys):
    assert main(["watch", "runs/trial", *option]) == 2
    assert capsys.readouterr().err.strip() == "--port and --open go with --web"


@pytest.mark.parametrize(("port", "reason"), [("x", "invalid int value"), ("70000", "from 1 to 65535")])
def test_a_port_that_is_none(port: str, reason: str, capsys, tmp_path: Path):
    assert main(["watch", str(tmp_path), "--web", "--port", port]) == 2
    assert reason in capsys.readouterr().err
