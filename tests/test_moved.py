"""Old module paths: each is answered with a place that exists, and old users' modules keep working."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.moved import TABLE

ROOT = Path(__file__).parents[1]
MOVED = json.loads(TABLE.read_text())


@pytest.mark.parametrize("old", MOVED["modules"])
def test_an_old_path_is_answered_with_a_module_that_exists(old):
    new = MOVED["modules"][old]
    assert importlib.util.find_spec(new) is not None
    if old not in MOVED["names"]:
        with pytest.raises(ModuleNotFoundError, match=r"moved\. Import harness\."):
            importlib.import_module(old)


def test_the_new_place_of_a_single_module_is_named():
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module("harness.config.errors")
    assert str(caught.value) == "harness.config.errors moved. Import harness.core.errors instead."


def test_a_name_that_never_was_is_answered_as_python_does():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'harness\.nonsense'"):
        importlib.import_module("harness.nonsense")


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in MOVED["names"].items() for name in names]
)
def test_what_users_import_works_and_says_where_it_is_now(module, name):
    place, _, new = MOVED["names"][module][name].partition(":")
    with pytest.warns(DeprecationWarning, match=rf"{module}\.{name} is deprecated: import {new} from"):
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(importlib.import_module(place), new)


def test_a_command_of_an_old_job_ends_with_the_new_place():
    done = subprocess.run(
        [sys.executable, "-m", "harness.describe", "x.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "harness.describe moved. Import harness.worker.describe instead." in done.stderr


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"])
def test_every_path_of_the_page_exists(page):
    text = (ROOT / page).read_text()
    paths = re.findall(r"`((?:harness|tests|conf|docs)/[\w./-]*)`", text)
    paths += [
        f"harness/{each}"
        for each in re.findall(
            r"`((?:data|training|models|records|compare|cli|worker|launcher)/[\w./-]+)`", text
        )
    ]
    assert [path for path in paths if not (ROOT / path).exists() and "mine" not in path] == []
