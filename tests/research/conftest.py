from pathlib import Path

import pytest

from danceopd_core import shapes
from danceopd_core.research.bench import loop

from ..tiny_world import save_tiny_world


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory) -> Path:
    return save_tiny_world(tmp_path_factory.mktemp("bench") / "model")


@pytest.fixture
def world(world_folder, monkeypatch) -> Path:
    """A tiny random model in the embedded one's place."""
    monkeypatch.setattr(shapes, "MODEL", world_folder)
    loop._weights.cache_clear()
    yield world_folder
    loop._weights.cache_clear()
