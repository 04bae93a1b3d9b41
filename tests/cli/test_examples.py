"""Examples of `harness VERB --help`: each is read as printed, and run so on a part of the demo's sweep."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path

import pytest

from harness import cli
from harness.cli.verb_parser import VerbParser
from harness.config.compose import sweep_configs
from tests.cli.support import run

DEMO = ("sweep", "experiment=attention", "variant=mha,hybrid", "scale=xs", "seed=0")
"""Two runs of the demo, under its names and with its steps, so that the examples name its checkpoints."""
SHORTER = {"sweep": ["--dry-run"], "train": ["scale.tokens=5120"]}
"""Options that keep the example from training for minutes."""
COMPOSED = ("sweep", "plan", "train")
"""Verbs whose other arguments are overrides of a config."""


def parser_of(verb: str) -> VerbParser:
    return importlib.import_module(f"harness.cli.verbs.{verb}").make_parser()


def example(verb: str) -> list[str]:
    """Return the arguments of the example, without the verb."""
    command, named, *arguments = shlex.split(parser_of(verb).example)
    assert (command, named) == ("harness", verb)
    return arguments


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_example_is_read_as_it_is_printed(verb):
    if verb in COMPOSED:
        _, overrides = parser_of(verb).parse_known_args(example(verb))
        assert sweep_configs(overrides)
    else:
        parser_of(verb).parse_args(example(verb))


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    code, _, err = run(*DEMO, folder=folder)
    assert code == 0, err
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_example_works_on_the_demo(verb, demo):
    """A process each, and a sweep trained for them: what a verb does is tested in its room."""
    code, out, err = run(verb, *example(verb), *SHORTER.get(verb, []), folder=demo)
    assert code == 0, err
    assert out
