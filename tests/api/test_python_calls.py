"""`harness.sweep` and `harness.plan`: what they hand to the command, read from it, and return."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import harness
from harness.api import request_plan, run_sweep
from harness.api.child_command import CommandInterrupted
from harness.api.progress_display import PlainDisplay
from harness.api.run_sweep import SweepOutput
from harness.core.errors import UserError
from harness.plan.predict import predict
from harness.report.opened_plan import OpenedPlan
from tests.compare.synthetic import write_sweep

LINES = """\
the mesh of xs/mha is kept
{path}: 4 runs; 1 scale x 2 variants x 2 seeds
  variants mha (control), hybrid; seeds 0, 1
[1/4] xs/mha/seed0: finished at step 39, loss 5.2076

It is not settled whether hybrid is better or worse than mha
runs/tiny/report.html"""


@pytest.fixture
def command(monkeypatch):
    """Record the words of the command, and let it print lines and raise an error."""
    calls: list[list[str]] = []

    def stand_in(module, text: str, error: BaseException | None = None) -> list[list[str]]:
        def run_command(words, on_line, on_wait=lambda: None):
            calls.append(words)
            for line in text.splitlines():
                on_line(line)
                on_wait()
            if error:
                raise error

        monkeypatch.setattr(module, "run_command", run_command)
        return calls

    return stand_in


def test_a_sweep_is_trained_and_opened(command, tmp_path, capsys):
    sweep = write_sweep(tmp_path / "my: 3 runs; sweep", edit=lambda draft: draft.scale == "xs")
    calls = command(run_sweep, LINES.format(path=sweep.path))
    opened = harness.sweep(["experiment=attention", "scale=xs"])
    assert calls == [["sweep", "experiment=attention", "scale=xs"]]
    assert opened.sweep.path == sweep.path
    printed = capsys.readouterr().out.splitlines()
    assert (printed[1], printed[-1]) == (
        f"{sweep.path}: 4 runs; 1 scale x 2 variants x 2 seeds",
        LINES.splitlines()[3],
    )


@pytest.mark.parametrize(
    "line",
    [
        "runs/a: 1 run; 1 scale x 1 variant x 1 seed",
        "runs/a: all 4 runs were finished before, so none is trained again.",
        "runs/a: its run was finished before.",
    ],
)
def test_the_folder_of_a_sweep_is_read_from_its_first_line(line):
    output = SweepOutput(PlainDisplay())
    output.take_line(line)
    assert output.path == "runs/a"


def test_a_failed_run_is_the_error_and_names_the_way_to_the_others(command):
    command(run_sweep, LINES.format(path="runs/tiny"), UserError("xs/mha/seed1: out of memory"))
    with pytest.raises(harness.UserError, match=r"^xs/mha/seed1: out of memory") as caught:
        harness.sweep(["scale=xs"])
    assert caught.value._render_traceback_() == [
        "UserError: xs/mha/seed1: out of memory",
        "harness.open_sweep('runs/tiny') reads the runs that have ended.",
    ]


def test_a_refused_sweep_has_no_folder_to_name(command):
    command(run_sweep, "", UserError("scale=q: no such choice"))
    with pytest.raises(harness.UserError) as caught:
        harness.sweep(["scale=q"])
    assert caught.value._render_traceback_() == ["UserError: scale=q: no such choice"]


def test_an_interruption_stays_one(command):
    command(run_sweep, LINES.format(path="runs/tiny"), CommandInterrupted("Stopped."))
    with pytest.raises(KeyboardInterrupt, match="Stopped"):
        harness.sweep(["scale=xs"])


def test_the_room_of_plans_is_called_like_the_function(command):
    content = {"runs": [], "page": {"runs": {}}}
    calls = command(request_plan, json.dumps(content, indent=2))
    for call in (harness.plan, request_plan.plan):
        assert isinstance(plan := call(["scale=xs"]), OpenedPlan)
        assert plan.content == content
    assert calls == [["plan", "--json", "scale=xs"]] * 2
    assert vars(harness.plan)["predict"] is predict  # the room, since this file imports it


def test_neither_jax_nor_hydra_is_imported():
    code = """
import sys, harness
for name in {*harness.__all__} - {"diff"}:
    getattr(harness, name)
import harness.api.run_sweep, harness.report.opened_plan
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"jax", "hydra", "altair", "IPython"} & {*done.stdout.split()}
