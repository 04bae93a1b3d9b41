"""The command as a child process: its lines, its sentence, its other ends, and its interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from harness.api import child_command
from harness.api.child_command import CommandInterrupted, check_overrides, run_command
from harness.core.errors import UserError


@pytest.fixture
def command(monkeypatch):
    """Let a script stand for the command."""

    def stand_in(script: str) -> None:
        def start(words, real=subprocess.Popen):
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
            return real([sys.executable, "-u", "-c", script, *words], start_new_session=True, **pipes)

        monkeypatch.setattr(child_command, "_start", start)

    return stand_in


def test_lines_are_handed_on_in_their_order(command):
    command("import sys; print(sys.argv[1:]); print('  a'); print(); print('é')")
    lines: list[str] = []
    run_command(["sweep", "a=b c"], lines.append)
    assert lines == ["['sweep', 'a=b c']", "  a", "", "é"]


@pytest.mark.parametrize("status", [1, 2])
def test_the_sentence_of_the_command_is_the_error(command, status):
    command(f"import sys; print('a note\\nx=1: wrong', file=sys.stderr); sys.exit({status})")
    with pytest.raises(UserError, match=r"^x=1: wrong$"):
        run_command(["sweep"], lambda _: None)


@pytest.mark.parametrize(
    ("script", "status"), [("raise ValueError('broken')", 1), ("import os; os.kill(os.getpid(), 9)", -9)]
)
def test_another_end_is_shown_as_it_is(command, script, status):
    command(script)
    with pytest.raises(RuntimeError, match=rf"harness sweep ended with status {status}:") as caught:
        run_command(["sweep"], lambda _: None)
    assert not isinstance(caught.value, UserError)
    assert ("broken" in str(caught.value)) == (status == 1)


OBEYS = """
import signal, sys, time
count = 0
def stop(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, stop)
print("ready")
while not count:
    time.sleep(.01)
time.sleep(.3)
print("saved", count)
sys.exit(130)
"""


def test_an_interruption_reaches_the_command_once_and_is_waited_for(command):
    command(OBEYS)
    lines: list[str] = []

    def take(line: str) -> None:
        lines.append(line)
        if line == "ready":
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(CommandInterrupted, match="The same call continues") as caught:
        run_command(["sweep"], take)
    assert lines == ["ready", "saved 1"]
    assert isinstance(caught.value, KeyboardInterrupt)
    assert caught.value._render_traceback_() == ["KeyboardInterrupt: Stopped. The same call continues."]


def test_a_command_that_ends_well_despite_an_interruption_has_ended_well(command):
    command(OBEYS.replace("sys.exit(130)", "sys.exit(0)"))
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    lines: list[str] = []

    def take(line: str) -> None:
        lines.append(line)
        if line == "ready":
            timer.start()

    run_command(["sweep"], take)
    assert lines == ["ready", "saved 1"]


def test_the_escapes_of_a_terminal_are_not_asked_for(monkeypatch):
    """As a kernel sets them: rich would draw a live display into the pipe."""
    for name in child_command.TERMINAL_VARIABLES:
        monkeypatch.setenv(name, "1")
    process = child_command._start(["--version"])
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert output.startswith("ab-harness ")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ("experiment=attention", r"give a list of overrides, such as \['experiment=attention'\]"),
        (["--dry-run"], "harness.plan predicts without training"),
        (["scale=xs", "--json"], "--json is an option of the command, not an override; give KEY=VALUE"),
    ],
)
def test_what_is_no_list_of_overrides_is_refused(overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        check_overrides("harness.sweep", overrides)
