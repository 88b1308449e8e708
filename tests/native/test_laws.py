"""The laws of the native backbone, each file of `laws` in a ComfyUI process of its own."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from ..comfyui import comfyui_python, comfyui_root

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HELPERS = ("runner", "tiny_models", "configs", "diffusers_pairs", "diffusers_backbones")
LONG = ("native_editors",)
"""Of shipped weights alone, which change with a new build."""
FILES = sorted(file.stem for file in (HERE / "laws").glob("*.py") if file.stem not in HELPERS)


@pytest.mark.parametrize(
    "laws", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in FILES]
)
def test_the_laws_hold_in_comfyui(laws):
    root = comfyui_root()
    # Without the project on the path: its folder `nodes` would stand in for ComfyUI's module of that name.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [comfyui_python(), HERE / "laws" / "runner.py", root, ROOT, laws],
        capture_output=True,
        text=True,
        cwd=root,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"law"')]
    assert found, "the file holds no law"
    broken = {law["law"]: law["fault"] for law in found if law["fault"]}
    assert not broken, "\n".join(f"{name}:\n{fault}" for name, fault in broken.items())
