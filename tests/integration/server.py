"""A real ComfyUI server with the pack as its only custom node, on a base folder of its own, and a small client."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PACK = "danceopd"
LEFT_OUT = (".*", "tests", "*.egg-info", "__pycache__", "build", "dist")


def copy_pack(base: Path, model: Path | None) -> Path:
    """The pack below `base/custom_nodes`, as cloned; with that folder as its embedded model, if one is given."""
    pack = base / "custom_nodes" / PACK
    shutil.copytree(ROOT, pack, ignore=shutil.ignore_patterns(*LEFT_OUT))
    if model:
        own = pack / "danceopd_core" / "shapes" / "model"
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(model, own)
    return pack


class Refused(Exception):
    """The server took no prompt: what it answered."""


class Server:
    """flags: ComfyUI's start options. card: on the CUDA card instead of the CPU."""

    def __init__(self, comfyui: Path, python: str, base: Path, *flags: str, port: int = 0, card: bool = False) -> None:
        for name in ("input", "output", "temp", "user", "models/diffusers", "models/loras"):
            (base / name).mkdir(parents=True, exist_ok=True)
        self.base, self.log_file = base, base / "server.log"
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        arguments = ["main.py", "--port", str(port), "--base-directory", str(base), "--disable-auto-launch"]
        arguments += [] if card else ["--cpu"]
        arguments += ["--disable-api-nodes", "--database-url", f"sqlite:///{base}/user/comfyui.db", *flags]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [python, "-u", *arguments], cwd=comfyui, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        until = time.monotonic() + 180
        while True:
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, OSError):
                if self.process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise RuntimeError(f"the server did not come up:\n{self.log()[-4000:]}") from None
                time.sleep(0.2)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.loads(answer.read())

    def raw(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read()

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def queue(self, prompt: dict) -> str:
        """The id of the queued prompt; Refused with the server's words if it does not validate."""
        try:
            return self.post("/prompt", {"prompt": prompt})["prompt_id"]
        except urllib.error.HTTPError as error:
            raise Refused(error.read().decode()) from None

    def wait(self, prompt_id: str, seconds: float = 480) -> dict:
        """The history entry of a prompt that has ended."""
        return self.until(lambda: self.get(f"/history/{prompt_id}").get(prompt_id), seconds)

    def run(self, prompt: dict) -> dict:
        return self.wait(self.queue(prompt))

    def told(self, prompt: dict) -> tuple[dict, list[tuple[str, Any]]]:
        """As `run`, with what a page hears meanwhile: (type, data) of every message."""
        return asyncio.run(self._told(prompt))

    async def _told(self, prompt: dict) -> tuple[dict, list[tuple[str, Any]]]:
        import aiohttp  # of ComfyUI's requirements, which whoever collects the tests need not have

        heard: list[tuple[str, Any]] = []
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{self.url}/ws?clientId=tests") as page:
            answer = self.post("/prompt", {"prompt": prompt, "client_id": "tests"})
            while ("executing", None) not in [(kind, data.get("node", "")) for kind, data in heard]:
                message = await page.receive(timeout=480)
                if message.type == aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)
                    heard.append((event["type"], event["data"]))
        return self.wait(answer["prompt_id"]), heard

    def until(self, found: Any, seconds: float = 240) -> Any:
        """What `found()` gives once it is true."""
        end = time.monotonic() + seconds
        while not (value := found()):
            assert self.process.poll() is None, f"the server is gone:\n{self.log()[-4000:]}"
            assert time.monotonic() < end, f"it took too long:\n{self.log()[-4000:]}"
            time.sleep(0.05)
        return value


def succeeded(entry: dict) -> bool:
    return entry["status"]["status_str"] == "success"


def messages(entry: dict) -> dict[str, dict]:
    """The prompt's messages by kind: execution_error, execution_interrupted, ..."""
    return dict(entry["status"]["messages"])
