"""Verdicts of the gallery: judged when the site is built, each with its page."""

from __future__ import annotations

from pathlib import Path

import harness
from harness.report.page.render import write_page
from harness.report.tables.wording import verdict_lines

ROOT = Path(__file__).parents[2]


def judged_verdict(pages: Path, path: str) -> str:
    """Judge a sweep or a table of logs at a path of the repository, and write its page into a folder. Return
    the sentences of the verdict, and a link to the page, as Markdown."""
    file = ROOT / path
    name = file.name.partition(".")[0]
    if file.suffix == ".csv":
        opened = harness.open_curves(file, decayed="last")
    else:
        opened = harness.open_sweep(f"tar://{name}::{file}")
    pages.mkdir(parents=True, exist_ok=True)
    write_page(pages / f"{name}.html", opened.comparison, opened.frames)
    sentences = "\n>\n".join(f"> {line}" for line in verdict_lines(opened.comparison))
    link = f'<a href="{pages.name}/{name}.html">The page as it was built</a>'
    return f"{sentences}\n\n{link}"
