import copy
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from danceopd_core.models.backbone import Backbone
from danceopd_core.models.registry import open_backbone

from .tiny import save_zimage

LONG = ("integration", "shapes", "research", "cli")
"""The folders whose modules take longest."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests stay together on one worker: those of a module, as they share what it opens; those with a server.

    Two workers have a server each: one for ComfyUI's own models, one for all else and the page. The longest come
    first, so that at the end no worker waits for another.
    """
    for item in items:
        slow = _is_slow(item)
        group = item.nodeid if slow else str(item.path)
        if "integration" in item.path.parts:
            alone = item.path.name.startswith("test_native_") and item.path.name != "test_native_pages.py"
            group = "comfyui's models" if alone else "comfyui"
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: (not _is_slow(item), item.path.parent.name not in LONG))


def _is_slow(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("slow", "long"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start: each worker has one core


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Nothing is kept in, or read from, the cache of who runs the tests."""
    os.environ["DANCEOPD_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def _signals_are_heard():
    """A shell ignores them for what it runs in the background, and so would the runs that tests end by one."""
    for name, handler in (
        ("SIGINT", signal.default_int_handler),
        ("SIGTERM", signal.SIG_DFL),
        ("SIGHUP", signal.SIG_DFL),
    ):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


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


@pytest.fixture
def csv_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a CSV file from its lines and gives its path."""

    def write(*lines: str, name: str = "prompts.csv") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def picture_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a random picture and gives its path."""

    def write(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write
