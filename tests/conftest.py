import copy
from pathlib import Path

import pytest
import torch

from danceopd_core.backbones import Backbone, open_backbone

from .tiny import save_zimage


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def zimage_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Z-Image pipeline on disk; read only."""
    return save_zimage(tmp_path_factory.mktemp("models") / "zimage")


@pytest.fixture(scope="session")
def opened_zimage(zimage_folder: Path) -> Backbone:
    """The tiny backbone, opened once; read only."""
    return open_backbone(zimage_folder)


@pytest.fixture
def zimage(opened_zimage: Backbone) -> Backbone:
    """The tiny backbone around a network of the test's own."""
    return opened_zimage.with_network(copy.deepcopy(opened_zimage.network))
