"""Service of a live page until Ctrl-C."""

from __future__ import annotations

import errno
import webbrowser
from collections.abc import Callable
from pathlib import Path

from harness.core.errors import UserError
from harness.core.paths import is_remote, local_path
from harness.web.live_server import LiveServer
from harness.web.pages import Pages

FIRST_PORT, PORTS_TRIED = 8577, 20
"""Port of a page if none is asked for, and number of ports after it that are tried while they are taken."""


def serve(path: str, port: int | None, open_browser: bool, show: Callable[[str], None]) -> None:
    """Serve the page of a sweep or of a folder of sweeps until KeyboardInterrupt, and show its address.

    Raises UserError for a URL and for a port that cannot be had.
    """
    if is_remote(path):
        raise UserError(
            f"--web {path}: the page reads folders; mount it, or use `harness watch {path} --once`"
        )
    pages = Pages(Path(local_path(path, "")))
    server = listen(pages, port)
    pages.open(())
    show(f"{server.url}")
    show("The page is for browsers on this machine, and changes nothing. Ctrl-C ends it.")
    if open_browser and not webbrowser.open(server.url):
        show("--open: there is no browser here. Open the address above.")
    try:
        server.serve_forever(poll_interval=0.5)
    finally:
        server.server_close()


def listen(pages: Pages, port: int | None) -> LiveServer:
    """Return a server on a port, or on the first free one if none is asked for. Raises UserError."""
    if port is not None:
        return _listen_on(pages, port)
    for candidate in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        try:
            return LiveServer(pages, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UserError(f"The page cannot listen on port {candidate}: {error.strerror}") from None
    return LiveServer(pages, 0)


def _listen_on(pages: Pages, port: int) -> LiveServer:
    if not 1 <= port <= 65535:
        raise UserError(f"--port {port}: a port is a number from 1 to 65535")
    try:
        return LiveServer(pages, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "another program has it, perhaps another page"
        else:
            reason = str(error.strerror)
        text = f"--port {port}: {reason}; choose another, or leave --port out for a free one"
        raise UserError(text) from None
