"""The page in a real browser, where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--no-pings", "--disable-extensions",
    "--disable-dev-shm-usage", "--virtual-time-budget=15000", "--enable-logging=stderr", "--dump-dom",
]  # fmt: skip

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: the page is not opened in a browser"
)

PROBE = """
const pause = () => new Promise(done => setTimeout(done, 400));
const marks = id => document.querySelectorAll(`#chart-${id} svg path`).length;
const say = (name, value) => { document.body.dataset[name] = value; };
const texts = () => [...document.querySelectorAll("#chart-curves svg text")].map(t => t.textContent);
async function probe() {
  while (!document.body.dataset.drawn) await pause();
  const choose = async (id, change) => {
    change(byId(id));
    byId(id).dispatchEvent(new Event("change"));
    await pause();
  };
  await choose("axis", select => { select.value = "flops"; });
  say("flops", texts().includes("model FLOPs"));
  await choose("log-x", box => { box.checked = true; });
  await choose("log-y", box => { box.checked = false; });
  say("marks", marks("curves"));
  document.querySelector("#chart-curves .role-legend-label text").dispatchEvent(
    new MouseEvent("click", {bubbles: true}));
  await pause();
  say("faded", document.querySelectorAll('#chart-curves svg path[stroke-opacity="0.08"]').length);
  const point = document.querySelector("#chart-ladder svg .mark-symbol path");
  const box = point.getBoundingClientRect();
  const at = {bubbles: true, clientX: box.x + box.width / 2, clientY: box.y + box.height / 2};
  for (const kind of ["pointerover", "pointermove", "mouseover", "mousemove"])
    point.dispatchEvent(new PointerEvent(kind, at));
  await pause();
  say("tip", document.getElementById("vg-tooltip-element")?.textContent || "");
  byId("tone").click();
  await pause();
  say("done", document.documentElement.dataset.tone);
}
probe();
"""


LAYOUT = """
const say = (name, value) => { document.body.dataset[name] = JSON.stringify(value); };
async function probe() {
  while (!document.body.dataset.drawn) await new Promise(done => setTimeout(done, 200));
  const boxes = [...document.querySelectorAll(".scroll, .chart")];
  const hinted = box => getComputedStyle(box.previousElementSibling).display !== "none";
  say("overflow", document.documentElement.scrollWidth > innerWidth);
  say("unhinted", boxes.filter(box => box.scrollWidth > box.clientWidth + 1 && !hinted(box)).length);
  say("wide", boxes.filter(hinted).length);
  say("charts", boxes.filter(box => box.className.includes("chart") && hinted(box)).map(box => box.id));
  const open = () => [...document.querySelectorAll("details:not(.chart details)")].map(part => part.open);
  dispatchEvent(new Event("beforeprint"));
  say("printing", open());
  dispatchEvent(new Event("afterprint"));
  say("after", open());
}
probe();
"""


def opened(page: Path, tmp_path: Path, *flags: str) -> tuple[str, list[str]]:
    """The document after its scripts ran, and every line that it wrote to the console."""
    assert CHROMIUM
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_charts_are_drawn_and_nothing_that_was_named_runs(hostile_page: Path, tmp_path: Path):
    document, console = opened(hostile_page, tmp_path)
    assert console == []
    assert 'data-drawn="3"' in document
    assert document.count('class="marks"') == 3
    assert "<title>attention: verdict</title>" in document


def probed(page: Path, tmp_path: Path, probe: str, *flags: str) -> dict[str, str]:
    """Run a probe in the page, and return what it wrote on the body."""
    free = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text())
    copy = tmp_path / "probed.html"
    head, _, tail = free.rpartition("</body>")
    copy.write_text(f"{head}<script>{probe}</script></body>{tail}")
    document, console = opened(copy, tmp_path, *flags)
    assert console == []
    body = re.search(r"<body[^>]*>", document)
    assert body
    return dict(re.findall(r'data-(\w+)="([^"]*)"', body[0]))


@pytest.mark.parametrize(("width", "some_are_wide"), [(500, True), (1280, False)])
def test_no_page_is_wider_than_its_screen_and_wide_parts_say_so(page: Path, tmp_path, width, some_are_wide):
    told = probed(page, tmp_path, LAYOUT, f"--window-size={width},900")
    assert told["overflow"] == "false"
    assert told["unhinted"] == "0"
    assert (told["wide"] != "0") == some_are_wide
    assert told["charts"] == "[]", "the charts of losses and multipliers fit a phone"
    assert set(json.loads(told["printing"])) == {True}, "what is folded is printed"
    assert set(json.loads(told["after"])) == {False}


def test_switches_legend_and_hover_work(page: Path, tmp_path: Path):
    told = probed(page, tmp_path, PROBE)
    assert told["flops"] == "true"
    assert int(told["marks"]) > 50
    assert int(told["faded"]) == 2 * 3 * 3, "all but one variant, at three scales and three seeds"
    assert "k [95 % CI]" in told["tip"]
    assert told["done"] == "dark"
