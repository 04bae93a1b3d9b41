"""A JAX that is too old is refused in one sentence, one that is too new is told; neither is imported."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness import cli
from harness.core.errors import UserError
from harness.core.jax_setup import jax_range

WAY_OUT = "install a tried one with `pip install 'jax>=0.10.2,<0.13'`"


@pytest.fixture
def installed(monkeypatch):
    return lambda version: monkeypatch.setattr(jax_range, "installed_jax", lambda: version)


@pytest.mark.parametrize(
    "version", ["0.10.2", "0.10.10", "0.11.0", "0.12", "0.12.0.1", "0.12.9.dev3", "local"]
)
def test_what_was_tried_is_taken_without_a_word(installed, version):
    installed(version)
    jax_range.check_jax_version()
    assert jax_range.newer_jax_note() == ""


@pytest.mark.parametrize("version", ["0.4.38", "0.9.2", "0.10", "0.10.1"])
def test_an_older_one_is_refused_with_the_way_out(installed, version):
    installed(version)
    with pytest.raises(UserError) as caught:
        jax_range.check_jax_version()
    assert str(caught.value) == f"jax {version}: it is older than 0.10.2, the oldest tried; {WAY_OUT}."


def test_without_any_the_same_way_out_is_named(installed):
    installed(None)
    with pytest.raises(UserError) as caught:
        jax_range.check_jax_version()
    assert str(caught.value) == f"jax is not installed; {WAY_OUT}."


def test_a_newer_one_is_used_and_told_with_the_flags_that_it_lacks(installed, monkeypatch):
    installed("0.13.1")
    jax_range.check_jax_version()
    told = f"jax 0.13.1: it is newer than 0.12, the newest tried; {WAY_OUT}."
    assert jax_range.newer_jax_note() == told
    monkeypatch.setattr(jax_range, "unknown_flags", lambda flags: ("--xla_a=1", "--xla_b=2"))
    assert jax_range.newer_jax_note() == f"{told} Its XLA lacks --xla_a=1, --xla_b=2: slower on CPU."


def test_the_command_refuses_and_tells_before_anything_is_read(installed, capsys):
    installed("0.9.0")
    assert cli.main(["sweep", "experiment=attention"]) == 2
    assert capsys.readouterr().err.startswith("jax 0.9.0: it is older than 0.10.2")
    assert cli.main(["compare", "nowhere"]) == 2, "what needs no JAX runs with any"
    assert "jax" not in capsys.readouterr().err
    installed("2.0")
    assert cli.main(["sweep", "no_such_key=1"]) == 2
    assert capsys.readouterr().err.startswith("jax 2.0: it is newer than 0.12")


def test_the_range_is_that_of_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (listed,) = (each for each in project["dependencies"] if each.startswith("jax>"))
    assert f"'{listed}'" in WAY_OUT


def test_jax_is_not_imported_for_it():
    program = (
        "import sys; from harness.core.jax_setup import jax_range; jax_range.check_jax_version();"
        "print([name for name in ('jax', 'jaxlib') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
