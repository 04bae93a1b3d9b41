"""Server of the live page, for browsers on this machine.

It is the server of the standard library: it does what is needed (a few files, and a stream of events to a
handful of browsers, each in a thread that sleeps), adds nothing to install, and has no more to keep secure
than what stands here. It reads nothing that an address names: an address is looked up among the pages.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from harness.web.page_state import Change, PageState
from harness.web.pages import Pages
from harness.web.request_checks import HEADERS, LOOPBACK, make_token, refusal, same_token
from harness.web.static_files import StaticFile, read_static_files

HEARTBEAT_SECONDS, SOCKET_SECONDS = 15.0, 20.0
"""Seconds after which an idle stream is written to, and after which a browser that takes nothing is left."""
GAP_SECONDS = 0.1
"""Seconds between two messages, so that many small changes make one."""
MAX_STREAMS = 32
"""Number of streams at once, at most. A browser opens six to one server."""
BATCH_BYTES = 200_000
"""Bytes from which a message is ended, so that a page of many runs is drawn while it arrives."""
FIRST_KEYS = ("notice", "setup", "progress", "verdict", "sweeps")
"""Keys that are sent before all others: what is seen first."""
WRONG_ADDRESS = "No such page. Copy the whole address that `harness watch --web` printed: it holds a token."


class LiveServer(ThreadingHTTPServer):
    """Server of the pages of one sweep or folder, on a port of the loopback interface."""

    daemon_threads = True

    def __init__(self, pages: Pages, port: int) -> None:
        """Listen on a port, 0 for a free one. Raises OSError if it is taken."""
        self.pages, self.token, self.files = pages, make_token(), read_static_files()
        self.streams = threading.BoundedSemaphore(MAX_STREAMS)
        super().__init__((LOOPBACK, port), _Handler)

    @property
    def port(self) -> int:
        """Port that the server listens on."""
        return self.server_address[1]

    @property
    def url(self) -> str:
        """Address of the first page, with the token."""
        return f"http://{LOOPBACK}:{self.port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away."""

    def server_close(self) -> None:
        """Stop listening, and end all streams."""
        super().server_close()
        self.pages.close()


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "harness", ""
    timeout = SOCKET_SECONDS

    def do_GET(self) -> None:
        """Answer with a page, a file or a stream."""
        if reason := refusal(self.headers, self.server.port):
            return self._send_text(HTTPStatus.FORBIDDEN, reason)
        address = urlsplit(self.path)
        token, *parts = [unquote(part) for part in address.path.lstrip("/").split("/")]
        if not same_token(token, self.server.token):
            return self._send_text(HTTPStatus.NOT_FOUND, WRONG_ADDRESS)
        *page, name = parts or [""]
        if not parts or not self.server.pages.has(page):
            return self._send_text(HTTPStatus.NOT_FOUND, WRONG_ADDRESS)
        if name == "events":
            return self._stream(self.server.pages.open(page), _version(self.headers, address.query))
        document = "folder.html" if self.server.pages.is_folder(page) else "sweep.html"
        file = self.server.files.get(name or document)
        if file is None:
            return self._send_text(HTTPStatus.NOT_FOUND, WRONG_ADDRESS)
        if not name:
            self.server.pages.open(page)  # reads while the browser loads the scripts
        return self._send(HTTPStatus.OK, file)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse a request that is not understood, such as one that would change something."""
        self.close_connection = True
        self._send_text(HTTPStatus(code), "This page is only read: it answers GET.")

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: an address holds the token."""

    def _send_text(self, status: HTTPStatus, text: str) -> None:
        self._send(status, StaticFile(f"{text}\n".encode(), "text/plain; charset=utf-8"))

    def _send(self, status: HTTPStatus, file: StaticFile) -> None:
        self._begin(status, file.media_type)
        self.send_header("Content-Length", str(len(file.content)))
        self.end_headers()
        self.wfile.write(file.content)

    def _begin(self, status: HTTPStatus, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        for name, value in HEADERS.items():
            self.send_header(name, value)

    def _stream(self, state: PageState, version: int) -> None:
        """Send the changes after a version, until the browser or the server leaves."""
        if not self.server.streams.acquire(blocking=False):
            text = f"{MAX_STREAMS} pages are open, which is all there may be. Close one."
            return self._send_text(HTTPStatus.SERVICE_UNAVAILABLE, text)
        state.join()
        try:
            self.close_connection = True
            self._begin(HTTPStatus.OK, "text/event-stream; charset=utf-8")
            self.send_header("Connection", "close")
            self.end_headers()
            with contextlib.suppress(OSError):  # the browser went away, or takes nothing any more
                self._send_changes(state, version)
        finally:
            state.leave()
            self.server.streams.release()

    def _send_changes(self, state: PageState, version: int) -> None:
        while not state.is_closed:
            changes = state.wait(version, HEARTBEAT_SECONDS)
            for message in event_messages(changes):
                self.wfile.write(message)
            if changes:
                version = changes[-1].version
                state.pause(GAP_SECONDS)
            else:
                self.wfile.write(b"data: {}\n\n")  # the browser knows that it is not cut off


def event_messages(changes: Sequence[Change]) -> Iterator[bytes]:
    """Yield the messages of a round of changes, oldest first: what is seen first comes first. Only the last
    one has an id, by which a browser that comes back says what it has."""
    ordered = sorted(changes, key=lambda change: change.key not in FIRST_KEYS)
    batch: list[str] = []
    size = 0
    for position, change in enumerate(ordered, start=1):
        batch.append(f"{json.dumps(change.key)}:{change.content}")
        size += len(change.content)
        is_last = position == len(ordered)
        if is_last or size > BATCH_BYTES:
            ending = f"id: {changes[-1].version}\n" if is_last else ""
            yield f"{ending}data: {{{','.join(batch)}}}\n\n".encode()
            batch, size = [], 0


def _version(headers: Any, query: str) -> int:
    """Return the version that a browser has; 0 for a new one."""
    text = headers.get("Last-Event-ID") or parse_qs(query).get("after", ["0"])[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
