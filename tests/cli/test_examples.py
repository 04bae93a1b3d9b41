"""Examples of `harness VERB --help`, each run as it is printed, on a part of the demo's sweep."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path

import pytest

from harness import cli
from tests.cli.support import run

DEMO = ("sweep", "experiment=attention", "variant=mha,hybrid", "scale=xs", "seed=0")
"""Two runs of the demo, under its names and with its steps, so that the examples name its checkpoints."""
SHORTER = {"sweep": ["--dry-run"], "train": ["scale.tokens=5120"]}
"""Options that keep the example from training for minutes."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    code, _, err = run(*DEMO, folder=folder)
    assert code == 0, err
    return folder


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_example_works_on_the_demo(verb, demo):
    parser = importlib.import_module(f"harness.cli.verbs.{verb}").make_parser()
    command, *arguments = shlex.split(parser.example)
    assert (command, arguments[0]) == ("harness", verb)
    code, out, err = run(*arguments, *SHORTER.get(verb, []), folder=demo)
    assert code == 0, err
    assert out
