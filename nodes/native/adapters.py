"""LoRA adapters over a MODEL, whatever its linear layers are: plain, cast on the fly, or quantised."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...danceopd_core.weights.adapters import STUDENT, Adapters
from ...danceopd_core.weights.linear_like import linear_like_shapes
from ...danceopd_core.weights.lora import Lora
from ...danceopd_core.weights.lora_hooks import HookedLayer, hook_lora


class NativeAdapters(Adapters):
    """Adapters whose layers are hooks, so that modules keep their names and quantised weights their kernels."""

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        """device, dtype: of teachers' factors; the student's are float32."""
        super().__init__(network)
        self.shapes = linear_like_shapes(network)
        self._hooks: dict[str, HookedLayer] = {}
        self._device, self._dtype = device, dtype

    def remove(self) -> None:
        """Takes all adapters off: the network is the bare base."""
        for layer in self._hooks.values():
            layer.remove()

    def _inject(self, name: str, lora: Lora) -> None:
        if name in self._scales:
            raise ValueError(f"the network already has the adapter {name!r}")
        dtype = self._dtype if name.startswith("teacher") else torch.float32
        hook_lora(self.network, self._hooks, name, lora, self._device, dtype)
        self._layers: dict[str, Any] = self._hooks
        self._scales[name] = lora.scale
        for factor in self.parameters():
            factor.requires_grad_(True)
        rest = [part for part in self._scales if not part.startswith("teacher")]
        for layer in self._hooks.values():
            layer._disable_adapters, layer._active_adapter = STUDENT not in self._scales, list(rest)
