"""The page in a real browser, where there is one."""

from __future__ import annotations

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


def opened(page: Path, tmp_path: Path) -> tuple[str, list[str]]:
    """The document after its scripts ran, and every line that it wrote to the console."""
    assert CHROMIUM
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_charts_are_drawn_and_nothing_that_was_named_runs(hostile_page: Path, tmp_path: Path):
    document, console = opened(hostile_page, tmp_path)
    assert console == []
    assert 'data-drawn="3"' in document
    assert document.count('class="marks"') == 3
    assert "<title>attention: verdict</title>" in document


def test_switches_legend_and_hover_work(page: Path, tmp_path: Path):
    free = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text())
    probed = tmp_path / "probed.html"
    head, _, tail = free.rpartition("</body>")
    probed.write_text(f"{head}<script>{PROBE}</script></body>{tail}")
    document, console = opened(probed, tmp_path)
    assert console == []
    told = dict(re.findall(r'data-(\w+)="([^"]*)"', re.search(r"<body[^>]*>", document)[0]))  # pyright: ignore
    assert told["flops"] == "true"
    assert int(told["marks"]) > 50
    assert int(told["faded"]) == 2 * 3 * 3, "all but one variant, at three scales and three seeds"
    assert "k [95 % CI]" in told["tip"]
    assert told["done"] == "dark"
