import os
from pathlib import Path

import pytest

from ..comfyui import absent, comfyui_python, comfyui_root
from .server import ROOT, Server, copy_pack


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A base folder with the pack in it. DANCEOPD_TEST_MODEL: a folder to stand for the embedded model."""
    model = os.environ.get("DANCEOPD_TEST_MODEL")
    comfyui_root()
    if not model and not (ROOT / "danceopd_core/shapes/model/realism/config.json").exists():
        absent("there is no embedded model: build it, or set DANCEOPD_TEST_MODEL to a folder that stands for it")
    folder = tmp_path_factory.mktemp("comfyui")
    copy_pack(folder, Path(model) if model else None)
    (folder / "input").mkdir()
    return folder


@pytest.fixture(scope="session")
def servers(base):
    """A list with the running server; a test may stop it and put another in its place."""
    found = [Server(comfyui_root(), comfyui_python(), base)]
    yield found
    found[0].stop()


@pytest.fixture
def server(servers):
    return servers[0]
