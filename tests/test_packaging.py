"""What stands in more than one file of the distribution, and must agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UV_LOCK = tomllib.loads((ROOT / "uv.lock").read_text())
HOSTS = {"https://pypi.org", "https://files.pythonhosted.org"}


def requirement(text: str) -> tuple[str, str, frozenset[str]]:
    parsed = Requirement(text)
    return parsed.name.replace("_", "-"), str(parsed.specifier), frozenset(parsed.extras)


def test_uv_lock_is_of_these_requirements():
    """`make locks` writes it anew."""
    (package,) = (item for item in UV_LOCK["package"] if item["name"] == PROJECT["name"])
    locked: dict[str, set] = {}
    for item in package["metadata"]["requires-dist"]:
        match = re.search("extra == '(.*)'", item.get("marker", ""))
        specifier = str(Requirement(f"x{item.get('specifier', '')}").specifier)
        locked.setdefault(match[1] if match else "", set()).add(
            (item["name"], specifier, frozenset(item.get("extras", ())))
        )
    asked = {"": PROJECT["dependencies"]} | PROJECT["optional-dependencies"]
    assert locked == {extra: {*map(requirement, texts)} for extra, texts in asked.items()}
    assert package["version"] == PROJECT["version"]


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-newest.lock"])
def test_a_lock_holds_what_is_required(lock):
    """`make locks` writes it anew."""
    names = {Requirement(line).name for line in (ROOT / lock).read_text().splitlines() if line[:1].isalnum()}
    asked = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    assert {requirement(text)[0] for text in asked} <= {name.replace("_", "-") for name in names}


def test_no_lock_names_a_host_of_its_own():
    for path in ROOT.glob("*.lock"):
        assert {*re.findall(r"\b[a-z]{3,6}://[^/\s\"]*", path.read_text())} <= HOSTS, path.name


def test_citation_and_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert re.search(
        rf"^## {re.escape(PROJECT['version'])}$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_the_image_is_built_from_what_the_wheel_is_built_from():
    """A folder that setup.py installs reaches the image."""
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    folders = set(re.findall(r'": "(\w+)"', (ROOT / "setup.py").read_text()))
    assert folders | {"pyproject.toml", "setup.py", PROJECT["readme"], "requirements.lock"} <= sent
    copied = re.findall(r"^COPY (?!--)(\S+) ", (ROOT / "Containerfile").read_text(), re.MULTILINE)
    assert copied == [".", "requirements.lock"]
