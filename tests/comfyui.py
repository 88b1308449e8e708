"""Where ComfyUI is on this machine, for the tests that need it; they are skipped where it is not.

DANCEOPD_REQUIRE_COMFYUI=1 makes them fail instead: a job that tests the pack in ComfyUI must not pass because it found
none.
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest


def absent(reason: str) -> NoReturn:
    """Skips the test that needs what is not here; fails it where all was promised."""
    if os.environ.get("DANCEOPD_REQUIRE_COMFYUI", "0") not in ("", "0"):
        pytest.fail(f"DANCEOPD_REQUIRE_COMFYUI is set, and {reason}", pytrace=False)
    pytest.skip(reason)


def comfyui_root() -> Path:
    """COMFYUI_PATH, or comfy-cli's default place."""
    root = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
    if not (root / "main.py").is_file():
        absent(f"there is no ComfyUI at {root}: set COMFYUI_PATH to a checkout of it")
    return root


@cache
def comfyui_python() -> str:
    """A Python that has ComfyUI's requirements: COMFY_PY, this one, or that of a venv in or beside the checkout."""
    root = comfyui_root()
    found = [os.environ.get("COMFY_PY"), sys.executable]
    found += [str(place / name / "bin" / "python") for place in (root, root.parent) for name in ("venv", ".venv")]
    needed = "import aiohttp, av, comfyui_frontend_package, diffusers, torchsde, yaml"
    for python in filter(None, found):
        if Path(python).exists() and not subprocess.run([python, "-c", needed], capture_output=True).returncode:
            return python
    absent("no Python has the requirements of both ComfyUI and this pack: set COMFY_PY to one that has")
