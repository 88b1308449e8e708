import json
import os
import subprocess
from pathlib import Path

import pytest

from ..comfyui import comfyui_python, comfyui_root

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def in_comfyui():
    """Runs a script of this folder as ComfyUI would run the pack, and returns its last line."""

    def run(script: str) -> str:
        root = comfyui_root()
        command = [comfyui_python(), Path(__file__).with_name(script), root, ROOT]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        assert "Traceback" not in done.stderr, done.stderr[-4000:]
        return done.stdout.splitlines()[-1]

    return run


@pytest.fixture(scope="session")
def pack(in_comfyui):
    """What ComfyUI finds in the pack, without a server; `nodes` holds the schemas."""
    return json.loads(in_comfyui("describe.py"))
