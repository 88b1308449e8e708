import json
import os
import subprocess
from pathlib import Path

import pytest

from ..comfyui import comfyui_python, comfyui_root

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def pack():
    """What ComfyUI finds in the pack, without a server; `nodes` holds the schemas."""
    python, root = comfyui_python(), comfyui_root()
    script = Path(__file__).with_name("describe.py")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [python, script, root, ROOT], capture_output=True, text=True, cwd=root, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Traceback" not in done.stderr, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
