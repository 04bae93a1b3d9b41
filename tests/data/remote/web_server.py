"""A web server of files in memory, which counts what it sends and fails as it is told to."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class WebFiles:
    """Files by path, and the server's behaviour."""

    files: dict[str, bytes] = field(default_factory=dict)
    has_ranges: bool = True
    status: int = 200
    cut_after: int | None = None
    """Bytes of all answers after which a connection breaks, once."""
    closed: str = ""
    """Folder that nobody may list."""
    num_sent: int = 0
    url: str = ""


@contextmanager
def serve(web: WebFiles) -> Iterator[WebFiles]:
    """Serve the files on a free port of this machine until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(has_body=False)

        def do_GET(self) -> None:
            self._answer(has_body=True)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self, has_body: bool) -> None:
            name = self.path.partition("?")[0].strip("/")
            content = web.files.get(name)
            status = 403 if name and name == web.closed else web.status
            folder = f"{name}/" * bool(name)
            if content is None and status == 200:
                names = [path.removeprefix(folder) for path in web.files if path.startswith(folder)]
                links = sorted({path.split("/")[0] + "/" * ("/" in path) for path in names})
                content = "".join(f'<a href="{link}">{link}</a>\n' for link in links).encode()
                status = 200 if names else 404
            content = content or b""
            tag = hashlib.sha256(content).hexdigest()[:16]
            start, stop = 0, len(content)
            if web.has_ranges and status == 200 and (ranges := self.headers.get("Range")):
                first, _, last = ranges.removeprefix("bytes=").partition("-")
                start, stop, status = int(first), min(stop, int(last) + 1), 206
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if name in web.files else "text/html")
            self.send_header("Content-Length", str(stop - start))
            self.send_header("ETag", f'"{tag}"')
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
            self.end_headers()
            if has_body:
                self._send(content[start:stop])

        def _send(self, body: bytes) -> None:
            if web.cut_after is not None and web.num_sent + len(body) > web.cut_after:
                body, web.cut_after = body[: web.cut_after - web.num_sent], None
                self.close_connection = True
            self.wfile.write(body)
            web.num_sent += len(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    web.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
