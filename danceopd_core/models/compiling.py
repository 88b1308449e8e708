"""Compiles a network's repeated blocks: one code for all blocks of a class, for every size of picture and text.

The network around them stays as it is. What a block reads beside its inputs has to be data, as LoRAs are once
`weights/lora_slots.py` holds them.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from contextlib import AbstractContextManager, ExitStack
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from ..errors import InputError

SETTINGS = {
    # Codes that one class of blocks may have, for its kinds of inputs, with and without gradients. torch's own is 8.
    "recompile_limit": 64,
    "accumulated_recompile_limit": 256,
    # What blocks read beside their parameters is LoRAs, of any rank.
    "force_nn_module_property_static_shapes": False,
    "specialize_float": True,
    # LoRAs are hooks: code of a layer without one must not serve a layer that has one.
    "skip_nnmodule_hook_guards": False,
}
"""Of torch's compiler, while a network is called."""


def check_compile(device: torch.device) -> None:
    """InputError if nothing here can compile for the device."""
    lacking = ""
    if device.type == "cuda":
        if find_spec("triton") is None:
            lacking = "a GPU needs triton, and it is not installed: pip install triton (on Windows triton-windows)"
    elif device.type != "cpu":
        raise InputError(f"blocks are compiled for CUDA and the CPU, and the device is {device}: leave compile out")
    elif shutil.which(_compiler()) is None:
        lacking = f"a CPU needs a C++ compiler, and there is no {_compiler()}: install it"
    elif not (headers := Path(sysconfig.get_path("include"), "Python.h")).is_file():
        lacking = f"a CPU needs Python's headers, and there is no {headers}: install them"
    if lacking:
        raise InputError(f"compiling for {lacking}, or leave compile out")


def compile_blocks(network: nn.Module, backend: str = "inductor") -> int:
    """Compiles the network's repeated blocks, in place, on their first calls; returns how many there are."""
    blocks = repeated_blocks(network)
    for block in blocks:
        block.compile(dynamic=True, backend=backend)
    limits = _Limits()
    network.register_forward_pre_hook(limits.enter, prepend=True)
    network.register_forward_hook(limits.leave, always_call=True)
    return len(blocks)


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks in the network's own lists of blocks."""
    return [
        block
        for part in network.children()
        if isinstance(part, nn.ModuleList)
        for block in part
        if any(True for _ in block.parameters())
    ]


class _Limits:
    """The compiler's settings while the network is called."""

    def __init__(self) -> None:
        self._entered: list[AbstractContextManager[object]] = []

    def enter(self, network: nn.Module, inputs: object) -> None:
        from torch._dynamo import config
        from torch.fx.experimental import _config as shapes

        stack = ExitStack()
        stack.enter_context(config.patch(SETTINGS))  # type: ignore[attr-defined]
        # Sizes that are equal by chance stay apart: a rank may be another adapter's, or the length of a text.
        stack.enter_context(shapes.patch(use_duck_shape=False))  # type: ignore[attr-defined]
        self._entered.append(stack)

    def leave(self, network: nn.Module, inputs: object, output: object) -> None:
        if self._entered:
            self._entered.pop().__exit__(None, None, None)


def _compiler() -> str:
    return os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
