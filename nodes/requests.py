"""Which requests may change something: those of ComfyUI's own page and of programs, not those of pages elsewhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ..danceopd_core.errors import InputError
from ..danceopd_core.outside import parse_json
from ..danceopd_core.runs.stored.records import check_name

JSON = "application/json"
BODY_LIMIT = 4096
"""Bytes of a request that changes something."""
NUMBER_LIMIT = 10**9


class Refusal(Exception):
    """A request that is refused, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check_change(headers: Mapping[str, str], other_origins: bool) -> None:
    """Refusal of a request that another page may have sent. other_origins: the server was started to take such.

    A page may send text/plain to anywhere without being asked; JSON it may not.
    """
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() != JSON:
        raise Refusal(415, f"send it as {JSON}")
    if not headers.get("Host"):
        raise Refusal(403, "the request names no Host")
    origin = headers.get("Origin")
    page = None if origin is None else _split(origin)
    if origin is not None and (page is None or not page.hostname):
        raise Refusal(403, "the request comes from a page without an origin")
    if other_origins:
        return
    if headers.get("Sec-Fetch-Site", "").lower() == "cross-site":
        raise Refusal(403, "the request comes from another site")
    if origin is not None and not _same_host(headers["Host"], origin):
        raise Refusal(403, "the request comes from another origin")


FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


def is_local(headers: Mapping[str, str], peer: str | None) -> bool:
    """Whether whoever asks sits at this machine, as far as can be told. peer: the address that the request comes from.

    A proxy of this machine passes on what others ask.
    """
    own = _split(f"//{headers.get('Host', '')}")
    if peer is None or own is None or any(name in headers for name in FORWARDED):
        return False
    return _is_loopback(peer.removeprefix("::ffff:")) and _is_loopback(own.hostname or "")


def _same_host(host: str, origin: str) -> bool:
    """ComfyUI's rule: on a loopback address, host and port are the origin's; elsewhere a proxy may change them."""
    asked, own = _split(origin), _split(f"//{host}")
    if own is None or asked is None:
        return False
    if not _is_loopback(own.hostname or ""):
        return True
    ports_differ = None not in (asked.port, own.port) and asked.port != own.port
    return asked.hostname == own.hostname and not ports_differ


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for one that is no number
    except ValueError:
        return None
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def node_of(body: bytes) -> str:
    """The node that a request names; Refusal of any other body."""
    node = object_of(body).get("node")
    if isinstance(node, bool) or not isinstance(node, str | int):
        raise Refusal(400, 'send {"node": id}')
    return str(node)


def choice_of(body: bytes, name: str, choices: Sequence[str]) -> str:
    """Which of the choices a request names; Refusal of any other body."""
    found = object_of(body).get(name)
    if not isinstance(found, str) or found not in choices:
        raise Refusal(400, f'send {{"{name}": {" or ".join(choices)}}}')
    return found


def object_of(body: bytes) -> dict[str, Any]:
    """The JSON object of a request; Refusal of any other body."""
    try:
        found = parse_json(body.decode(), "the request")
    except (InputError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        raise Refusal(400, "send a JSON object")
    return found


def number(text: str | None, name: str, default: int | None, least: int) -> int | None:
    """A whole number of the query; Refusal of any other text."""
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > 10 or not least <= int(text) <= NUMBER_LIMIT:
        raise Refusal(400, f"{name}: give a whole number from {least}")
    return int(text)


def is_name(text: str) -> bool:
    """Whether a run can have that name; no run has one with folders, control characters or halves of characters."""
    try:
        return check_name(text) == text
    except InputError:
        return False
