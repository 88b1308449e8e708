"""The active LoRAs of a network as data for compiled blocks: switching adapters changes values, not code.

A compiled block runs as long as what it reads is of the kinds that it was traced with. So without gradients every
layer multiplies by one pair of factors, whichever adapter is active: zeros where it has none, two adapters as one of
both ranks. The rank is a size that the code leaves open. With gradients the student alone is ever active.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .lora_layers import LoraLayer, Slot

LEAST_RANK = 2
"""Compilers write code of its own for sizes 0 and 1."""


class LoraSlots:
    """Fills the slots of all layers before every call of the network.

    layers: by module name, with those that are added later. dtype: in which the network computes, on `device`.
    """

    def __init__(
        self, network: nn.Module, layers: Mapping[str, LoraLayer], dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self._layers, self._dtype, self._device = layers, dtype, torch.device(device)
        self._kept: dict[tuple[LoraLayer, tuple[str, ...]], tuple[tuple[object, ...], Slot]] = {}
        self._scales: dict[tuple[LoraLayer, str, float], Tensor] = {}
        self._handle = network.register_forward_pre_hook(self._fill)

    def remove(self) -> None:
        """The layers read their adapters themselves again."""
        self._handle.remove()
        for layer in self._layers.values():
            layer.slots = None

    def _fill(self, network: nn.Module, inputs: object) -> None:
        slots = self._trained if torch.is_grad_enabled() else self._frozen
        for layer in self._layers.values():
            layer.slots = slots(layer, tuple(name for name in layer.active if name in layer.down))

    def _trained(self, layer: LoraLayer, names: tuple[str, ...]) -> tuple[Slot, ...]:
        """The factors themselves, for their gradients. The rollout's copies go: activations have their memory."""
        self._kept.pop((layer, names), None)
        return tuple(
            Slot(layer.down[name].to(self._device), layer.up[name].to(self._device), self._scale(layer, name))
            for name in names
        )

    def _frozen(self, layer: LoraLayer, names: tuple[str, ...]) -> tuple[Slot]:
        factors = [factor for name in names for factor in (layer.down[name], layer.up[name])]
        state = (
            *(layer.scaling[name] for name in names),
            *(mark for factor in factors for mark in (factor._version, factor.data_ptr())),
        )
        known, slot = self._kept.get((layer, names), (None, None))
        if slot is None or known != state:
            slot = self._made(layer, names)
            self._kept[layer, names] = state, slot
        return (slot,)

    def _made(self, layer: LoraLayer, names: tuple[str, ...]) -> Slot:
        """One pair of factors for all of the names, of no less than the least rank."""
        downs, ups = ([self._cast(by_name[name]) for name in names] for by_name in (layer.down, layer.up))
        if len({layer.scaling[name] for name in names}) > 1:
            ups = [up * layer.scaling[name] for up, name in zip(ups, names, strict=True)]
            names = ()
        first = next(iter(layer.down))
        missing = LEAST_RANK - sum(len(down) for down in downs)
        if missing > 0:
            downs.append(self._cast(layer.down[first]).new_zeros(missing, layer.down[first].shape[1]))
            ups.append(self._cast(layer.up[first]).new_zeros(len(layer.up[first]), missing))
        down = downs[0] if len(downs) == 1 else torch.cat(downs)
        up = ups[0] if len(ups) == 1 else torch.cat(ups, 1)
        torch._dynamo.maybe_mark_dynamic(down, 0)
        torch._dynamo.maybe_mark_dynamic(up, 1)
        return Slot(down, up, self._scale(layer, names[0] if names else ""))

    def _cast(self, factor: Tensor) -> Tensor:
        return factor.detach().to(self._device, self._dtype)

    def _scale(self, layer: LoraLayer, name: str) -> Tensor:
        """A tensor of the layer's own: code made for layers that share one fits no others."""
        scale = layer.scaling.get(name, 1.0)
        key = layer, name, scale
        if key not in self._scales:
            self._scales[key] = torch.tensor(scale, device=self._device)
        return self._scales[key]
