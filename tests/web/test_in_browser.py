"""The live page in a real headless browser, with a sweep at work: what it shows, how fast, at what cost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import SOURCE, clean_env
from tests.compare.synthetic import Recipe, write_sweep
from tests.web.browser import Browser, missing
from tests.web.simulated_sweep import SimulatedSweep

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]

MIB = 2**20
HOUR_UPDATES = int(os.environ.get("AB_WEB_UPDATES", "3600"))
"""Changes of a simulated hour, one a second."""


@pytest.fixture
def browser() -> Iterator[Browser]:
    window = Browser()
    yield window
    window.close()


class Command:
    """`harness watch --web` in a process of its own."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-u", "-m", "harness", "watch", str(path), "--web"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.process = subprocess.Popen(command, env=clean_env(), cwd=SOURCE, **pipes)
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), self.url

    @property
    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory(self) -> float:
        """Resident memory in MiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert match
        return int(match[1]) * 1024 / MIB

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def watch() -> Iterator:
    commands = []

    def start(path: Path) -> Command:
        commands.append(Command(path))
        return commands[-1]

    yield start
    for command in commands:
        command.close()


def drawn(browser: Browser) -> int:
    return int(browser.run("return Number(document.body.dataset.drawn || 0)"))


def first_paint(browser: Browser) -> float:
    """Seconds from the navigation until the browser painted text."""
    name = "first-contentful-paint"
    browser.wait(lambda: browser.run(f"return performance.getEntriesByName('{name}').length"))
    return browser.run(f"return performance.getEntriesByName('{name}')[0].startTime") / 1000


def test_a_sweep_at_work_until_it_is_deleted(browser: Browser, watch, tmp_path: Path):
    sim = SimulatedSweep(tmp_path / "trial")
    command = watch(sim.sweep.path)
    browser.open(command.url)
    browser.wait(lambda: "12 queued" in browser.text("#counts"))
    assert browser.run("return document.getElementById('pairs-section').hidden")
    for name in sim.names[:8]:
        sim.advance(name, 32)
    browser.wait(lambda: "8 running" in browser.text("#counts"))
    browser.wait(lambda: browser.run("return document.querySelectorAll('#pairs canvas').length") == 2)
    browser.wait(lambda: "so far" in browser.text("#head").lower())
    browser.run("document.getElementById('curves').scrollIntoView()")
    browser.wait(lambda: drawn(browser) > 0)
    before = drawn(browser)
    canvas = browser.run("return window.kept = document.querySelector('#curves canvas')")
    assert canvas
    for name in sim.names[:8]:
        sim.advance(name, 16)
    browser.wait(lambda: drawn(browser) > before)
    assert browser.run("return window.kept === document.querySelector('#curves canvas')"), "updated in place"
    sim.fail(sim.names[8], "<img src=x onerror=alert(1)>")
    browser.wait(lambda: "<img src=x onerror=alert(1)>" in browser.text("#failures"))
    sim.finish()
    browser.wait(lambda: "over" in browser.text("#state"))
    browser.wait(lambda: "so far" not in browser.text("#head").lower())
    assert re.search(r"hybrid (is|needs|against)|whether hybrid", browser.text("#verdict"))
    assert browser.complaints() == []
    shutil.rmtree(sim.sweep.path)
    browser.wait(lambda: "was moved or deleted" in browser.text("#notice"))
    assert command.process.poll() is None, "the server goes on"
    assert not browser.run("return document.documentElement.scrollWidth > innerWidth")


def test_a_page_that_slept_shows_what_changed_since(browser: Browser, watch, tmp_path: Path):
    sim = SimulatedSweep(tmp_path / "trial")
    browser.open(watch(sim.sweep.path).url)
    browser.wait(lambda: "12 queued" in browser.text("#counts"))
    browser.driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "frozen"})
    assert browser.run("return document.hidden")
    for name in sim.names:
        for _ in range(4):
            sim.advance(name, 16)
    time.sleep(3)
    browser.driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "active"})
    assert "12 queued" in browser.text("#counts"), "a page that nobody sees reads nothing"
    first, *_ = browser.driver.window_handles
    browser.driver.switch_to.new_window("tab")
    browser.driver.switch_to.window(first)
    browser.wait(lambda: "12 ended" in browser.text("#counts"))
    browser.wait(lambda: browser.run("return document.querySelectorAll('#curves canvas').length") == 2)


def test_two_tones_a_legend_and_other_axes(browser: Browser, watch, tmp_path: Path):
    recipe = Recipe(scales={"xs": 10**7}, branches=())
    browser.open(watch(write_sweep(tmp_path / "trial", recipe).path).url)
    browser.wait(lambda: browser.run("return document.querySelectorAll('#curves canvas').length") == 1)
    browser.run("document.getElementById('curves').scrollIntoView()")
    picture = "return document.querySelector('#curves canvas').toDataURL()"
    images = set()
    actions = (
        "",
        "document.getElementById('tone').click()",
        "document.querySelector('#legend button').click()",
        "const a = document.getElementById('axis'); a.value = 'f'; a.dispatchEvent(new Event('change'))",
        "document.getElementById('log-x').click()",
    )
    for action in actions:
        browser.run(action)
        browser.wait(lambda: browser.run(picture) not in images and drawn(browser) > 0)
        time.sleep(0.3)
        images.add(browser.run(picture))
    assert len(images) == len(actions)
    assert browser.complaints() == []


@pytest.mark.parametrize(("runs", "limit"), [(27, 1.0), (1000, 3.0)])
def test_first_paint_and_a_quiet_server(browser: Browser, watch, tmp_path: Path, runs: int, limit: float):
    variants = {f"v{i}": 1 + 0.01 * i for i in range(3 if runs == 27 else 10)}
    seeds = tuple(range(3 if runs == 27 else 20))
    scales = {"xs": 10**7, "s": 3 * 10**7, "m": 10**8, "l": 3 * 10**8, "xl": 10**9}
    chosen = dict(list(scales.items())[: 3 if runs == 27 else 5])
    sweep = write_sweep(tmp_path / "many", Recipe(scales=chosen, variants=variants, seeds=seeds, branches=()))
    command = watch(sweep.path)
    browser.open("about:blank")
    browser.open(command.url)
    cold = browser.wait(lambda: f"{runs} runs" in browser.text("#summary"))
    panels = len(chosen) * len(variants)
    complete = cold + browser.wait(
        lambda: browser.run("return document.querySelectorAll('.panel canvas').length") == panels, 240
    )
    paint = first_paint(browser)
    browser.wait(lambda: browser.text("#reasons"), 240)
    start = time.monotonic()
    browser.open(command.url)
    browser.wait(lambda: f"{runs} runs" in browser.text("#summary"))
    browser.wait(lambda: browser.run("return document.querySelectorAll('.panel canvas').length") == panels)
    warm, warm_paint = time.monotonic() - start, first_paint(browser)
    time.sleep(15)
    cpu, moment = command.cpu_seconds, time.monotonic()
    time.sleep(60)
    share = (command.cpu_seconds - cpu) / (time.monotonic() - moment)
    print(
        f"\n{runs} runs: first paint {paint:.2f} s, with progress {cold:.2f} s, "
        f"all panels {complete:.1f} s on "
        f"a new server; {warm_paint:.2f} s and all panels {warm:.2f} s on one that has read the sweep; "
        f"{100 * share:.2f} % of a core while nothing changes, {command.memory:.0f} MiB"
    )
    assert max(paint, warm_paint) < limit
    assert warm < limit, "with all panels"
    assert share < 0.02


def test_memory_stays_flat_over_an_hour_of_a_sweep(browser: Browser, watch, tmp_path: Path):
    steps = 512
    sim = SimulatedSweep(
        tmp_path / "trial", Recipe(scales={"xs": 10**7}, branches=(), steps=steps, points=64)
    )
    command = watch(sim.sweep.path)
    browser.open(command.url)
    moves = [(name, steps // 16) for _ in range(16) for name in sim.names]
    sizes = []
    for number in range(HOUR_UPDATES):
        name, size = moves[number % len(moves)]
        if number and number % len(moves) == 0:  # the next sweep in the same folder
            shutil.rmtree(sim.sweep.path)
            sim = SimulatedSweep(tmp_path / "trial", sim.recipe)
        sim.advance(name, size)
        if number % 100 == 99:
            sizes.append((command.memory, browser.run("return performance.memory.usedJSHeapSize") / MIB))
    first, last = sizes[len(sizes) // 3], sizes[-1]
    server, page = (f"{first[i]:.0f} -> {last[i]:.0f} MiB" for i in (0, 1))
    print(f"\n{HOUR_UPDATES} changes: server {server}, page {page}")
    assert last[0] < 1.15 * first[0] + 8
    assert last[1] < 1.5 * first[1] + 16
