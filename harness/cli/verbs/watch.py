"""`harness watch`: show a sweep live in the terminal while another process runs it."""

from __future__ import annotations

import contextlib
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from harness.cli.verb_parser import VerbParser
from harness.core.errors import UserError
from harness.core.paths import is_remote
from harness.records.paths import SweepDir

REFRESH_SECONDS, CPU_SHARE = 1.0, 0.1
"""Seconds between two frames, at least, and share of a core that watching may use."""


def make_parser() -> VerbParser:
    """Build the parser of `harness watch`."""
    parser = VerbParser(
        "watch",
        "show a sweep live: running runs, queue, failures, utilisation",
        "harness watch runs/attention",
        "It only reads the sweep's directories. It waits for a sweep that has not begun, and exits when the "
        "sweep\nis over, on q, or on Ctrl-C. With --web it serves a page for a browser on this machine until "
        "Ctrl-C:\nof a sweep, or of a folder of sweeps such as runs/.",
        uses_jax=False,
    )
    parser.add("sweep", "SWEEP", "directory of a sweep; with --once also a URL")
    parser.add_flag("--once", "print one frame and do not wait; without a terminal one frame is printed too")
    parser.add_flag("--json", "with --once: print the progress of every run as JSON")
    parser.add_flag("--web", "serve the report as a live page, and print its address")
    parser.add("--port", "N", "with --web: port on this machine; the first free one from 8577 on", type=int)
    parser.add_flag("--open", "with --web: open the page in the browser")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Show frames until the sweep is over, q or Ctrl-C, or one frame if the output is not a terminal."""
    options = make_parser().parse_args(arguments)
    if options.web:
        return _serve_page(options.sweep, options.port, options.open)
    if options.port is not None or options.open:
        raise UserError("--port and --open go with --web")
    if options.json:
        if not options.once:
            raise UserError("--json goes with --once: repeat the command to follow a sweep")
        return _print_json(options.sweep)
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from harness.cli.views.watch_frame import draw_frame
    from harness.records.sweep.find_sweep import read_sweep
    from harness.report.frames.sweep_progress import ProgressReader
    from harness.report.tables.terminal import table_width

    console = Console()
    if options.once or not console.is_terminal:
        sweep = read_sweep(options.sweep) if options.once else _wait_in_pipe(options.sweep)
        progress = ProgressReader(sweep).read(time.time())
        width = table_width(console)
        console.print(draw_frame(progress, width, None), soft_wrap=width is None)
        return 0
    live_display = Live(console=console, auto_refresh=False)
    with contextlib.suppress(KeyboardInterrupt), _key_reader() as read_key, live_display as live:
        sweep = _wait_for_sweep(options.sweep, lambda line: live.update(Text(line), refresh=True), read_key)
        reader = sweep and ProgressReader(sweep)
        while reader:
            cpu_start, progress = time.process_time(), reader.read(time.time())
            live.update(draw_frame(progress, console.width, console.height), refresh=True)
            pause = max(REFRESH_SECONDS, (time.process_time() - cpu_start) / CPU_SHARE)
            if progress.is_over or read_key(pause) == "q":
                break
    return 0


def _print_json(path: str) -> int:
    """Print the progress of a sweep now."""
    from harness.cli.json_output.json_text import json_text
    from harness.cli.json_output.watched_sweep import watched_sweep
    from harness.records.sweep.find_sweep import read_sweep
    from harness.report.frames.sweep_progress import ProgressReader

    print(json_text("watch", watched_sweep(ProgressReader(read_sweep(path)).read(time.time()))))
    return 0


def _serve_page(path: str, port: int | None, open_browser: bool) -> int:
    """Serve the live page of a sweep or of a folder of sweeps until Ctrl-C."""
    from harness.web.serve import serve

    with contextlib.suppress(KeyboardInterrupt):
        serve(path, port, open_browser, partial(print, flush=True))
    return 0


def _wait_in_pipe(path: str) -> SweepDir:
    """Return the sweep as soon as it has a run. Why it waits, one sees on the standard error."""
    from harness.records.sweep.find_sweep import read_sweep

    if is_remote(path):
        return read_sweep(path)
    show = partial(print, file=sys.stderr, flush=True)
    sweep = _wait_for_sweep(path, show, lambda seconds: time.sleep(seconds) or "")
    assert sweep is not None, "nobody pressed a key"
    return sweep


def _wait_for_sweep(
    path: str, show: Callable[[str], None], read_key: Callable[[float], str]
) -> SweepDir | None:
    """Return the sweep as soon as it has a run; None if q is pressed before. Raises UserError for a URL."""
    from harness.records.sweep.find_sweep import find_sweep

    shown_reason = ""
    while True:
        try:
            return find_sweep(path)
        except UserError as error:
            if is_remote(path):
                raise
            if str(error) != shown_reason:
                shown_reason = str(error)
                show(f"Waiting for the sweep to begin (Ctrl-C leaves): {shown_reason}")
        if read_key(REFRESH_SECONDS) == "q":
            return None


@contextlib.contextmanager
def _key_reader() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits some seconds for a key and returns it, or '' if none was pressed."""
    if not sys.stdin.isatty():
        yield lambda seconds: time.sleep(seconds) or ""
        return

    def read_key(seconds: float) -> str:
        return sys.stdin.read(1) if select.select([sys.stdin], [], [], seconds)[0] else ""

    attributes = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield read_key
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, attributes)
