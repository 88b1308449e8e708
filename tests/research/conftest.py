from pathlib import Path

import pytest

from danceopd_core import shapes
from danceopd_core.research.bench.identity import weights_checksum

from ..tiny_world import save_tiny_world


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory) -> Path:
    return save_tiny_world(tmp_path_factory.mktemp("bench") / "model")


@pytest.fixture
def world(world_folder, monkeypatch) -> Path:
    """A tiny random model in the embedded one's place."""
    monkeypatch.setattr(shapes, "MODEL", world_folder)
    weights_checksum.cache_clear()
    yield world_folder
    weights_checksum.cache_clear()
