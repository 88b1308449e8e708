"""A ComfyUI server of its own with this pack in it, started for the soak, and what is asked of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from ...errors import InputError

ROOT = Path(__file__).parents[3]
START = 300.0
"""Seconds that the server may take to come up."""
FOLDERS = ("input", "output", "temp", "user", "custom_nodes", "models/diffusers", "models/loras")


class ServerGone(Exception):
    """The server ended, or answers no longer."""


class ComfyServer:
    """A context manager. base: an empty folder for the server's files. comfyui: a checkout of ComfyUI whose
    requirements this Python has. InputError if the server does not come up."""

    def __init__(self, comfyui: Path, base: Path) -> None:
        if not (comfyui / "main.py").is_file():
            raise InputError(f"--comfyui: {comfyui} is no checkout of ComfyUI: it has no main.py")
        for name in FOLDERS:
            (base / name).mkdir(parents=True, exist_ok=True)
        (base / "custom_nodes" / "danceopd").symlink_to(ROOT)
        self.base, self._log = base, base / "server.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        arguments = ["main.py", "--cpu", "--port", str(port), "--base-directory", str(base), "--disable-auto-launch"]
        arguments += ["--disable-api-nodes", "--database-url", f"sqlite:///{base}/user/comfyui.db"]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *arguments], cwd=comfyui, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> ComfyServer:
        until = time.monotonic() + START
        while True:
            try:
                self.ask("/system_stats")
                return self
            except ServerGone:
                if self._process.poll() is not None or time.monotonic() > until:
                    self.__exit__()
                    raise InputError(f"--comfyui: the server did not come up:\n{self.log()[-3000:]}") from None
                time.sleep(0.2)

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def ask(self, path: str, body: Any = None, seconds: float = 30) -> tuple[int, Any]:
        """(status, JSON) of a request; with a body it is a POST. ServerGone if there is no answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _json(error.read())
        except (OSError, ValueError) as error:
            raise ServerGone(str(error)) from error

    def run(self, prompt: Any, seconds: float) -> dict[str, Any] | None:
        """The history entry of a prompt when it has ended; an empty one if it was not taken; None after `seconds`."""
        status, answer = self.ask("/prompt", {"prompt": prompt})
        if status != 200:
            return {}
        return self.wait(answer["prompt_id"], seconds)

    def wait(self, prompt: str, seconds: float) -> dict[str, Any] | None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found: dict[str, Any] | None = self.ask(f"/history/{prompt}")[1].get(prompt)
            if found is not None:
                return found
            if self._process.poll() is not None:
                raise ServerGone(f"status {self._process.returncode}")
            time.sleep(0.05)
        return None

    def memory(self) -> float:
        """MiB that the server's process holds."""
        import psutil

        return float(psutil.Process(self._process.pid).memory_info().rss) / 2**20


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None
