"""docs/new_variant.md, the pages of the sockets, and what the README shows of a plan, followed to the letter
in an empty folder."""

from __future__ import annotations

import pytest

from tests.docs.documents import FENCE, ROOT
from tests.docs.follow import assert_in_order, blocks, follow, run

SOCKETS = sorted(path for path in (ROOT / "docs" / "sockets").glob("*.md") if path.stem != "README")


@pytest.mark.slow
def test_the_guide_does_what_it_says(tmp_path):
    """Two sweeps that train. Quick tests of test_printed.py choose its files and read its commands."""
    followed = follow(ROOT / "docs" / "new_variant.md", tmp_path)
    assert (followed.status, followed.compared) == (0, 2)
    assert (tmp_path / "runs/retention/report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", SOCKETS, ids=lambda page: page.stem)
def test_the_page_of_a_socket_does_what_it_says(page, tmp_path):
    """A sweep that trains, each."""
    followed = follow(page, tmp_path)
    assert followed.status == 0, followed.printed
    assert [*tmp_path.glob("runs/*/*/*/*/metrics*")]


@pytest.mark.parametrize("page", SOCKETS, ids=lambda page: page.stem)
def test_the_page_of_a_socket_has_files_and_a_command(page):
    kinds = {block.kind for block in blocks(page)}
    assert {"python", "yaml", "sh"} <= kinds
    assert all(block.file.name for block in blocks(page) if block.kind in ("python", "yaml"))


def test_every_socket_has_a_page_in_the_list():
    listed = (ROOT / "docs" / "sockets" / "README.md").read_text()
    assert [page.name for page in SOCKETS if f"]({page.name})" not in listed] == []


def test_the_readme_shows_what_a_plan_prints(tmp_path):
    readme = (ROOT / "README.md").read_text()
    shown = next(text for _, text in FENCE.findall(readme) if text.startswith("$ harness plan"))
    command, _, expected = shown.removeprefix("$ ").partition("\n")
    assert_in_order(expected, run(command, tmp_path).printed)
