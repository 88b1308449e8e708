"""The HTTP API of a run's results: its pictures over the updates, which student is published, its folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from ..danceopd_core.errors import InputError
from ..danceopd_core.runs.stored.publishing import Which, publish_kept, saved_facts
from ..danceopd_core.runs.stored.records import RunRecord
from ..danceopd_core.runs.stored.stored_runs import delete_run, stored_runs
from ._comfy import RUNS, other_origins, output_folder, send
from .answers import answered, body_of, run_of
from .file_manager import open_folder
from .requests import Refusal, check_change, choice_of, is_local, object_of

Result = TypeVar("Result")


def register(routes: web.RouteTableDef) -> None:
    """Adds the routes."""

    @routes.get("/danceopd/stored-runs")
    @answered
    async def stored(request: web.Request) -> web.StreamResponse:
        return web.json_response(await asyncio.to_thread(stored_runs, output_folder()))

    @routes.get("/danceopd/runs/{run}/strip")
    @answered
    async def strip(request: web.Request) -> web.StreamResponse:
        return web.json_response(await asyncio.to_thread(_strip, await run_of(request, own=True)))

    @routes.post("/danceopd/runs/{run}/publish")
    @answered
    async def publish(request: web.Request) -> web.StreamResponse:
        check_change(request.headers, other_origins())
        which: Any = choice_of(await body_of(request), "update", ("best", "last"))
        return web.json_response(await _unless_it_runs(_publish, await run_of(request, own=True), which))

    @routes.post("/danceopd/runs/{run}/delete")
    @answered
    async def delete(request: web.Request) -> web.StreamResponse:
        check_change(request.headers, other_origins())
        object_of(await body_of(request))
        return web.json_response({"deleted": await _unless_it_runs(delete_run, await run_of(request, own=True))})

    @routes.post("/danceopd/runs/{run}/open")
    @answered
    async def show(request: web.Request) -> web.StreamResponse:
        check_change(request.headers, other_origins())
        object_of(await body_of(request))
        record = await run_of(request, own=True)
        if not is_local(request.headers, request.remote):
            place = record.path.relative_to(record.path.parents[2]).as_posix()
            raise Refusal(403, f"only the server's own machine opens folders: this one is {place} there")
        await _unless_it_runs(open_folder, record.path)
        return web.json_response({"opened": True})


async def _unless_it_runs(work: Callable[..., Result], *given: Any) -> Result:
    """What the work gives, done in a thread; Refusal with the reason where the run's state does not allow it."""
    try:
        return await asyncio.to_thread(work, *given)
    except InputError as error:
        raise Refusal(409, str(error)) from None


def _strip(record: RunRecord) -> dict[str, Any]:
    status = RUNS.of_run(record.name) or record.status() or {}
    return record.strip.table([picture["prompt"] for picture in status.get("pictures", [])]).to_dict(record.url)


def _publish(record: RunRecord, which: Which) -> dict[str, Any]:
    published = publish_kept(record, which)
    if live := RUNS.of_run(record.name):
        send({**live, "saved": saved_facts(record), "time": time.time()})
    return published
