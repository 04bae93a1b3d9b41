"""The page: self-contained, inert, and saying what the comparison says."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

from harness.report.charts import theme
from harness.report.frames.sweep_frames import read_frames
from harness.report.page import render as report_page
from tests.report.conftest import HOSTILE
from tests.report.example import VERDICT

VOID = {"meta", "br", "img", "input", "link", "hr"}


class Reader(HTMLParser):
    """Elements, attributes and the text of a page; raises where the elements do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in self.open:
            self.texts.setdefault(tag, []).append(data)

    def text(self, tag: str) -> str:
        return " ".join(" ".join(self.texts[tag]).split())


def test_the_verdict_is_the_first_thing_said(page: Path):
    reader = Reader(page.read_text())
    assert reader.text("h1") == VERDICT
    assert reader.tags.index("h1") < reader.tags.index("table")


def test_a_card_has_the_colour_of_its_variant_and_no_colour_stands_for_a_decision(page: Path):
    text = page.read_text()
    styles = re.findall(r'<article class="card variant-(\d)">', text)
    assert styles == ["1", "2"]
    style = Reader(text).text("style")
    for tone in (theme.LIGHT, theme.DARK):
        for i, colour in enumerate(tone["variants"]):
            assert style.count(colour) == style.count(f"--variant-{i}: {colour};") > 0


def test_names_that_repeat_can_be_read(page: Path):
    style = Reader(page.read_text()).text("style")
    assert re.search(r"\.same \{ color: var\(--soft\); \}", style)
    assert _contrast(theme.LIGHT["soft"], theme.LIGHT["page"]) > 4.5
    assert _contrast(theme.DARK["soft"], theme.DARK["page"]) > 4.5


def _contrast(ink: str, page: str) -> float:
    """Contrast of two colours by WCAG 2; 4.5 is enough for text."""
    bright, dark = sorted((_luminance(ink), _luminance(page)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_section_is_there(page: Path):
    titles = Reader(page.read_text()).texts["h2"]
    assert titles == [
        "Fairness", "Ladder", "Loss curves", "Differences", "Domains", "Gate", "Flags",
        "Config differences", "Provenance",
    ]  # fmt: skip


def test_nothing_would_be_fetched(page: Path):
    reader = Reader(page.read_text())
    fetching = {"src", "href", "srcset", "data", "poster", "action", "formaction", "background"}
    assert not [pair for pair in reader.attributes if pair[0] in fetching]
    assert not {"link", "img", "iframe", "object", "base"} & set(reader.tags)
    assert not re.search(r"url\(|@import", reader.text("style"))
    (policy,) = [value for _, value in reader.attributes if "default-src" in value]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src" not in policy


def test_names_and_texts_are_inert(hostile_page: Path):
    text = hostile_page.read_text()
    reader = Reader(text)
    assert reader.tags.count("script") == 3
    assert "img" not in reader.tags
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert HOSTILE in " ".join(reader.texts["h1"])
    embedded = re.search(r'<script type="application/json" id="report">(.*?)</script>', text, re.DOTALL)
    assert embedded
    assert not set("<>&\u2028") & set(embedded[1])
    assert (
        HOSTILE
        in json.loads(embedded[1])["specs"]["curves"]["spec"]["layer"][0]["encoding"]["color"]["scale"][
            "domain"
        ]
    )


def test_config_differences_and_provenance_are_told(page: Path):
    text = Reader(page.read_text()).text("main")
    assert 'model.attention.name xs, s, m "mha" "hybrid" "short"' in text
    for fact in ("c" * 16, "d" * 16, "0.10.2", "27 finished", "seeds added"):
        assert fact in text


def test_small_and_quick(sweep, told, page: Path):
    taken = []
    for _ in range(2):
        started = time.process_time()
        report_page.render_page(told, read_frames(sweep, told))
        taken.append(time.process_time() - started)
    assert min(taken) < 1.5
    assert page.stat().st_size < 1.5e6


def test_an_empty_sweep_still_says_its_verdict(tmp_path, told):
    from harness.records.paths import SweepDir

    text = report_page.render_page(told, read_frames(SweepDir(tmp_path), told))
    assert Reader(text).text("h1") == VERDICT
