"""The HTTP API of the page and other clients: runs, their history and pictures, and stop requests.

Files are read in threads, so that no request keeps the server's loop from the others.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from ..danceopd_core.files import is_link
from ..danceopd_core.runs.live.history_pages import json_pieces
from ..danceopd_core.runs.live.strip import PICTURES
from ..danceopd_core.runs.stored.records import RunRecord, all_runs
from . import runs_http
from ._comfy import RUNS, current_server, other_origins, output_folder
from .answers import answered as _answered
from .answers import body_of as _body
from .answers import run_of as _run
from .estimates import PROMPT_LIMIT, estimated
from .requests import Refusal, check_change, node_of, number


def register() -> None:
    """Adds the routes to ComfyUI's server, where there is one."""
    server = current_server()
    if server is None:
        return
    routes = server.routes
    runs_http.register(routes)

    @routes.get("/danceopd/runs")
    @_answered
    async def runs(request: web.Request) -> web.StreamResponse:
        return web.json_response(await asyncio.to_thread(all_runs, output_folder()))

    @routes.get("/danceopd/runs/{run}")
    @_answered
    async def run(request: web.Request) -> web.StreamResponse:
        """null for a run without a status that can be read."""
        record = await _run(request)
        return web.json_response(RUNS.of_run(record.name) or await asyncio.to_thread(record.status))

    @routes.get("/danceopd/runs/{run}/history")
    @_answered
    async def history(request: web.Request) -> web.StreamResponse:
        after = number(request.query.get("after"), "after", 0, 0)
        limit = number(request.query.get("limit"), "limit", None, 1)
        record = await _run(request)
        body = await asyncio.to_thread(lambda: json_pieces(record.history(after or 0, limit)))
        return web.Response(body=body, content_type="application/json")

    @routes.get("/danceopd/runs/{run}/pictures/{file}")
    @_answered
    async def picture(request: web.Request) -> web.StreamResponse:
        record = await _run(request, own=True)
        file = await asyncio.to_thread(_picture, record, request.match_info["file"])
        if file is None:
            raise Refusal(404, "no such picture")
        return web.FileResponse(file)

    @routes.get("/danceopd/nodes/{node}")
    @_answered
    async def node(request: web.Request) -> web.StreamResponse:
        """null for a node without a status since the server started."""
        return web.json_response(RUNS.of_node(request.match_info["node"]))

    @routes.post("/danceopd/stop")
    @_answered
    async def stop(request: web.Request) -> web.StreamResponse:
        check_change(request.headers, other_origins())
        name = node_of(await _body(request))
        return web.json_response({"node": name, "stopping": RUNS.stop(name)})

    one_at_a_time = asyncio.Lock()

    @routes.post("/danceopd/estimate")
    @_answered
    async def estimate(request: web.Request) -> web.StreamResponse:
        check_change(request.headers, other_origins())
        body = await _body(request, PROMPT_LIMIT)
        async with one_at_a_time:
            return web.json_response(await asyncio.to_thread(estimated, body))


def _picture(record: RunRecord, name: str) -> Path | None:
    folder = record.path / PICTURES
    if is_link(folder):
        return None
    found = next((file for file in folder.glob("*.png") if file.name == name), None)
    inside = found is not None and found.is_file() and found.resolve().parent == folder.resolve()
    return found if inside else None
