"""The server: who gets an answer, and how changes reach a browser."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.core.errors import UserError
from harness.web import live_server
from harness.web.live_server import LiveServer, event_messages
from harness.web.page_state import PageState
from harness.web.pages import Pages
from harness.web.serve import listen, serve
from tests.compare.synthetic import Recipe
from tests.web.simulated_sweep import SimulatedSweep


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "runs"
    SimulatedSweep(folder / "trial", Recipe(scales={"xs": 10**7}, branches=(), seeds=(0,)))
    return folder


@pytest.fixture
def server(runs: Path) -> Iterator[LiveServer]:
    made = LiveServer(Pages(runs), 0)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(10)


def ask(
    server: LiveServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], str]:
    """Send a request; `_` in the name of a header stands for `-`."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=sent)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.headers), text


def messages(server: LiveServer, path: str, count: int, **headers: str) -> list[dict]:
    """Read so many messages of a stream: the id, and the values."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})
    answer, received, ident = connection.getresponse(), [], None
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    while len(received) < count:
        line = answer.readline().decode().rstrip("\n")
        if line.startswith("id: "):
            ident = int(line[4:])
        elif line.startswith("data: "):
            received.append({"id": ident, "values": json.loads(line[6:])})
    connection.close()
    return received


def test_pages_and_their_files_need_the_token(server: LiveServer):
    token = server.token
    assert len(token) >= 32
    for path in (
        f"/{token}/",
        f"/{token}/sweep.js",
        f"/{token}/sweep/trial/",
        f"/{token}/sweep/trial/live.css",
    ):
        status, headers, text = ask(server, path)
        assert (status, headers["Content-Length"]) == (200, str(len(text.encode())))
    for path in (
        "/",
        "/wrong/",
        f"/{token[:-1]}/",
        f"/{token}x/",
        "/sweep.js",
        f"/wrong/{token}/",
        f"/{token}",
    ):
        status, _, text = ask(server, path)
        assert (status, text) == (404, f"{live_server.WRONG_ADDRESS}\n")


@pytest.mark.parametrize(
    "path",
    [
        "/{}/sweep/../", "/{}/sweep/%2e%2e/", "/{}/sweep/%2e%2e%2fsecret/", "/{}/../../etc/passwd",
        "/{}/%2fetc%2fpasswd", "/{}/sweep/trial/rule.json", "/{}/sweep/trial/..%2f..%2frule.json",
        "/{}/static/sweep.js", "/{}/a/b/c/d/", "/{}/sweep/trial%00/", "/{}//etc/passwd", "/{}/sweep//",
        "/{}/live_server.py",
    ],
)  # fmt: skip
def test_no_address_names_a_file(server: LiveServer, path: str):
    assert ask(server, path.format(server.token))[0] == 404


def test_a_foreign_host_origin_or_page_gets_nothing(server: LiveServer):
    page, port = f"/{server.token}/", server.port
    assert ask(server, page, Host=f"localhost:{port}")[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", "0.0.0.0", ""):
        assert ask(server, page, Host=host)[0] == 403
    assert ask(server, page, Origin=f"http://127.0.0.1:{port}")[0] == 200
    for origin in (
        "http://evil.example",
        "null",
        f"http://127.0.0.1:{port + 1}",
        f"https://127.0.0.1:{port}",
    ):
        assert ask(server, page, Origin=origin)[0] == 403
        assert ask(server, f"{page}events", Origin=origin)[0] == 403
    for site in ("cross-site", "same-site"):
        assert ask(server, page, Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")[0] == 403
        assert ask(server, page, Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")[0] == 200, (
            "a link was followed"
        )


def test_it_only_answers_get(server: LiveServer):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"):
        assert ask(server, f"/{server.token}/", method)[0] >= 400


def test_answers_forbid_foreign_scripts_frames_and_referrers(server: LiveServer):
    for path in (f"/{server.token}/", "/wrong/"):
        headers = ask(server, path)[1]
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert not [name for name in headers if name.startswith("Access-Control")]


def test_it_listens_on_the_loopback_interface_only(server: LiveServer):
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_a_stream_sends_what_changed_since_the_browser_left(server: LiveServer, monkeypatch):
    state = PageState()
    monkeypatch.setattr(server.pages, "open", lambda page: state)
    path = f"/{server.token}/events"
    state.put("a", 1)
    state.put("b", 1)
    (first,) = messages(server, path, 1)
    assert first == {"id": 2, "values": {"a": 1, "b": 1}}
    state.put("a", 2)
    assert messages(server, f"{path}?after=2", 1) == [{"id": 3, "values": {"a": 2}}]
    assert messages(server, path, 1, Last_Event_ID="2") == [{"id": 3, "values": {"a": 2}}]
    for wrong in ("-1", "x", "9" * 40, ""):
        assert messages(server, f"{path}?after={wrong}", 1) == [{"id": 3, "values": {"a": 2, "b": 1}}]


def test_a_change_is_pushed_while_the_browser_listens(server: LiveServer, monkeypatch):
    state = PageState()
    monkeypatch.setattr(server.pages, "open", lambda page: state)

    def write() -> None:
        for i in range(3):
            state.wait_for_reader(10)
            state.put("a", i)
            state.pause(3 * live_server.GAP_SECONDS)

    thread = threading.Thread(target=write)
    thread.start()
    received = messages(server, f"/{server.token}/events", 3)
    thread.join(10)
    assert [message["values"]["a"] for message in received] == [0, 1, 2]


def test_a_browser_that_takes_nothing_is_left_and_costs_no_memory(server: LiveServer, monkeypatch):
    monkeypatch.setattr(live_server._Handler, "timeout", 0.5)
    state = server.pages.open(["sweep", "trial"])
    sleeper = socket.create_connection(("127.0.0.1", server.port))
    sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    address = f"/{server.token}/sweep/trial/events"
    sleeper.sendall(f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
    assert state.wait_for_reader(10)
    for i in range(400):
        state.put("big", f"{i} {'x' * 100_000}")
        state.pause(0.02)
        if not state.wait_for_reader(0):
            break
    assert not state.wait_for_reader(0), "its thread has ended"
    sleeper.close()


def test_so_many_streams_and_no_more(server: LiveServer, monkeypatch):
    for _ in range(live_server.MAX_STREAMS):
        server.streams.acquire(blocking=False)
    status, _, text = ask(server, f"/{server.token}/events")
    assert status == 503
    assert "Close one." in text


def test_what_is_seen_first_is_sent_first_and_a_broken_round_is_sent_again():
    state = PageState()
    for i in range(50):
        state.put(f"curve/{i}", "x" * 20_000)
    state.put("progress", 1)
    texts = [message.decode() for message in event_messages(state.wait(0, 0))]
    assert len(texts) > 3
    assert texts[0].startswith('data: {"progress":1,"curve/0":')
    assert ["id: " in text for text in texts] == [False] * (len(texts) - 1) + [True]
    assert all(text.endswith("\n\n") and text.count("\n\n") == 1 for text in texts)


def test_two_pages_take_two_ports_and_a_taken_port_is_refused(tmp_path: Path, monkeypatch):
    first = listen(Pages(tmp_path), None)
    second = listen(Pages(tmp_path), None)
    try:
        assert first.port != second.port
        with pytest.raises(UserError, match=rf"--port {first.port}: another program has it"):
            listen(Pages(tmp_path), first.port)
        for port in (0, -1, 65536):
            with pytest.raises(UserError, match="from 1 to 65535"):
                listen(Pages(tmp_path), port)
    finally:
        first.server_close()
        second.server_close()


def test_a_url_is_refused_before_anything_listens():
    with pytest.raises(UserError, match=r"--web s3://bucket/runs: the page reads folders"):
        serve("s3://bucket/runs", None, False, print)
