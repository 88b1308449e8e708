"""The HTTP API of the page and other clients: runs, their history and pictures, and stop requests."""

from __future__ import annotations

from aiohttp import web

from ..danceopd_core.runs.records import RunRecord, all_runs
from ._comfy import RUNS, current_server, output_folder


def register() -> None:
    """Adds the routes to ComfyUI's server, where there is one."""
    server = current_server()
    if server is None:
        return
    routes = server.routes

    @routes.get("/danceopd/runs")
    async def runs(request: web.Request) -> web.Response:
        return web.json_response(all_runs(output_folder()))

    @routes.get("/danceopd/runs/{run}")
    async def run(request: web.Request) -> web.Response:
        record = _run(request)
        return web.json_response(RUNS.of_run(record.name) or record.status())

    @routes.get("/danceopd/runs/{run}/history")
    async def history(request: web.Request) -> web.Response:
        return web.json_response(_run(request).history())

    @routes.get("/danceopd/runs/{run}/pictures/{file}")
    async def picture(request: web.Request) -> web.StreamResponse:
        for file in (_run(request).path / "pictures").glob("*.png"):
            if file.name == request.match_info["file"]:
                return web.FileResponse(file)
        raise web.HTTPNotFound(text="no such picture")

    @routes.get("/danceopd/nodes/{node}")
    async def node(request: web.Request) -> web.Response:
        """null for a node without a status since the server started."""
        return web.json_response(RUNS.of_node(request.match_info["node"]))

    @routes.post("/danceopd/stop")
    async def stop(request: web.Request) -> web.Response:
        try:
            name = str((await request.json())["node"])
        except (ValueError, KeyError, TypeError):
            return web.json_response({"error": 'send {"node": id}'}, status=400)
        return web.json_response({"node": name, "stopping": RUNS.stop(name)})


def _run(request: web.Request) -> RunRecord:
    """The run of that name; 404 if it does not exist."""
    name = request.match_info["run"]
    if name not in all_runs(output_folder()):
        raise web.HTTPNotFound(text="no such run")
    return RunRecord(output_folder(), name)
