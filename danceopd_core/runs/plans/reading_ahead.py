"""Reads the LoRAs of a run before its prompts are encoded and its transformer is loaded, which both take long."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from ...errors import naming
from ...models.backbone import Backbone
from ...recipe.schema import Recipe
from ...weights.adapters import Adapters
from ...weights.linear_like import linear_shapes
from ...weights.lora import Lora, Shapes
from .sources import Weights


class RememberedLoras:
    """`weights`, whose LoRAs can be read ahead; each is kept until it is read the last time."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._kept: dict[str, tuple[Lora, int]] = {}

    def read_ahead(self, recipe: Recipe, backbone: Backbone) -> None:
        """Reads the LoRAs over the run's own model; InputError, naming the setting, for one that does not fit it."""
        shapes = linear_shapes(backbone.network)
        names = {f"teachers.{name}.lora": t.lora for name, t in recipe.teachers.items() if not t.model}
        names["student.start"] = None if recipe.student.start == "fresh" else recipe.student.start
        names["student.base_lora"] = recipe.student.base_lora
        for setting, name in names.items():
            if name is not None:
                with naming(setting):
                    lora = (
                        self._kept[name][0] if name in self._kept else self._weights.read_lora(name, backbone, shapes)
                    )
                self._kept[name] = lora, self._kept.get(name, (lora, 0))[1] + 1

    def read_lora(self, name: str, backbone: Backbone, shapes: Shapes) -> Lora:
        if name not in self._kept:
            return self._weights.read_lora(name, backbone, shapes)
        lora, uses = self._kept.pop(name)
        if uses > 1:
            self._kept[name] = lora, uses - 1
        return lora

    def adapters(self, backbone: Backbone) -> Adapters:
        return self._weights.adapters(backbone)

    def write_lora(self, path: Path, lora: Lora, metadata: Mapping[str, str]) -> None:
        self._weights.write_lora(path, lora, metadata)

    def checkpoint(self, name: str, backbone: Backbone, in_host_memory: bool = False) -> Backbone:
        return self._weights.checkpoint(name, backbone, in_host_memory)

    def enable_checkpointing(self, network: nn.Module) -> None:
        self._weights.enable_checkpointing(network)
