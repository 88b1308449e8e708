"""The shipped workflows on a server that uses a CUDA card, with dynamic VRAM and without."""

import pytest
import torch

from ..comfyui import comfyui_python, comfyui_root
from .graphs import RUNNABLE
from .on_a_card import NATIVE, tried
from .server import Server

MAY_STAY = 256
"""Megabytes: workspaces of torch's libraries."""


@pytest.mark.parametrize("flags", [(), ("--disable-dynamic-vram",)], ids=["default", "without dynamic VRAM"])
def test_every_shipped_workflow_runs_and_gives_the_memory_back(flags, base, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA card, which this is about")
    own = tmp_path / "comfyui"
    own.mkdir()
    (own / "custom_nodes").symlink_to(base / "custom_nodes")
    server = Server(comfyui_root(), comfyui_python(), own, *flags, card=True)
    try:
        rows = list(tried(server, own, [NATIVE, *RUNNABLE]))
    finally:
        server.stop()
    print(*rows, sep="\n")
    assert not [row for row in rows if row["fault"]]
    assert not [row for row in rows if row["trains"] and not row["lora"]]
    assert not [row for row in rows if row["after_mb"] - rows[0]["after_mb"] > MAY_STAY]
    assert rows[0]["ours_theirs"] <= 2
    assert rows[0]["direct_theirs"] == 0
