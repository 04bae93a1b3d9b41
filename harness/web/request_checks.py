"""Checks of a request: from this machine's browser, for this server, with its token."""

from __future__ import annotations

import secrets
from email.message import Message

LOOPBACK = "127.0.0.1"
"""The only address that the server listens on."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
"""Headers of every answer. The address holds the token, so it is never passed on as a referrer, and a text
that was not escaped cannot run as a script."""
_OWN_SITES = ("same-origin", "none")


def refusal(headers: Message, port: int) -> str:
    """Return why a request is refused; '' if it comes from a page of this server, or from the user.

    A foreign Host is that of a page whose name was pointed here (DNS rebinding), a foreign Origin that of
    another page in the browser; one on another port of this machine is foreign too.
    """
    hosts = {f"{name}:{port}" for name in (LOOPBACK, "localhost")}
    host, origin = headers.get("Host", ""), headers.get("Origin")
    if host.lower() not in hosts:
        return "This page answers only to its own address on this machine."
    if origin is not None and origin.lower() not in {f"http://{name}" for name in hosts}:
        return "This page answers no other page."
    is_opened = headers.get("Sec-Fetch-Mode") == "navigate"
    if headers.get("Sec-Fetch-Site", "none") not in _OWN_SITES and not is_opened:
        return "This page answers no other page."
    return ""


def make_token() -> str:
    """Return a random token for the address of a server."""
    return secrets.token_urlsafe(24)


def same_token(word: str, token: str) -> bool:
    """Return whether a word is the token, in a time that tells nothing about it."""
    return secrets.compare_digest(word.encode(errors="replace"), token.encode())
