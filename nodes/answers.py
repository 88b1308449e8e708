"""What the answers of the HTTP API have in common: refusals with their reason, bounded bodies, runs by name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from aiohttp import web

from ..danceopd_core.errors import InputError
from ..danceopd_core.files import is_link
from ..danceopd_core.runs.stored.records import RunRecord
from ._comfy import output_folder
from .requests import BODY_LIMIT, Refusal, is_name

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answered(handler: Handler) -> Handler:
    """What is refused, and what cannot be read of a run, is an answer with its reason."""

    @wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return _error(refusal.status, refusal)
        except (InputError, OSError) as error:
            return _error(422, error if isinstance(error, InputError) else "the run's folder cannot be read")

    return answer


def _error(status: int, message: Any) -> web.Response:
    return web.json_response({"error": str(message)}, status=status)


async def body_of(request: web.Request, limit: int = BODY_LIMIT) -> bytes:
    """The body of a request; Refusal if it has more bytes than the limit."""
    data = bytearray()
    async for part in request.content.iter_any():
        data += part
        if len(data) > limit:
            raise Refusal(413, f"send {limit} bytes at most")
    return bytes(data)


async def run_of(request: web.Request, own: bool = False) -> RunRecord:
    """The run of that name; 404 if it does not exist.

    own: its folder has to lie here; a link to elsewhere is refused.
    """
    name = request.match_info["run"]
    if not is_name(name):
        raise Refusal(404, "no such run")
    record = RunRecord(output_folder(), name)
    if record.name != name or not await asyncio.to_thread((record.path / "identity.json").is_file):
        raise Refusal(404, "no such run")
    if own and await asyncio.to_thread(is_link, record.path):
        reason = f"{name} is a link to another folder: go there for its files"
        raise Refusal(409 if request.method == "POST" else 404, reason)
    return record
