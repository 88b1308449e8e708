"""One frozen network with many LoRA fields: the student and its LoRA teachers share every base weight.

The student is the adapter that is active by default; a teacher is active only inside its own call, under no_grad.
With gradient checkpointing the backward pass recomputes layers with whatever adapter is active then, so nothing may
be switched between the student's forward and its backward.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..algorithm.fields import Conditioning, VelocityField
from ..errors import InputError
from .linear_like import linear_shapes
from .lora import Lora, Shapes, stacked
from .lora_layers import LoraLayer, add_lora, has_adapters
from .lora_slots import LoraSlots

STUDENT = "student"
BASE_LORA = "base_lora"  # the frozen LoRA that a student may be trained on top of


class Adapters:
    """LoRA adapters in `network`, which is frozen; only the student's factors (float32) require gradients.

    Without a student, no adapter is active by default.
    """

    def __init__(
        self, network: nn.Module, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """device: of all factors; dtype: of the teachers'. None: those of the layers, float32 if not half precision."""
        if has_adapters(network):
            raise ValueError("the network already has adapters: add them all to one Adapters")
        self.network = network.requires_grad_(False)
        self.shapes: Shapes = linear_shapes(network)
        self._scales: dict[str, float] = {}
        self._layers: dict[str, LoraLayer] = {}
        self._slots: LoraSlots | None = None
        self._device, self._dtype = device, dtype

    def add_teacher(self, lora: Lora) -> str:
        """Adds a frozen LoRA; returns the adapter name to pass to `field`."""
        name = f"teacher_{sum(other != STUDENT for other in self._scales)}"
        self._inject(name, lora)
        return name

    def start_student(self, lora: Lora, base_lora: Lora | None = None) -> None:
        """Adds the LoRA to train: a `fresh_lora`, or one of `read_lora`, whose training continues at its ranks.

        base_lora: a LoRA that stays frozen under the student; the student's field is then that of both.
        """
        if base_lora is not None:
            self._inject(BASE_LORA, base_lora)
        self._inject(STUDENT, lora)

    def field(self, velocity: VelocityField, name: str | None, strength: float = 1.0) -> VelocityField:
        """`velocity` with one adapter active: STUDENT, a teacher at a strength, or None for the bare base model.

        Only the student's field carries gradients.
        """
        if name is not None and name not in self._scales:
            raise ValueError(f"there is no adapter {name!r}; there are {sorted(self._scales)}")
        if name == STUDENT:
            if strength != 1:
                raise ValueError("the student is always active at strength 1: give no other strength")
            return velocity

        def frozen(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
            with torch.no_grad(), self._active(name, strength):
                return velocity(x, sigma, cond)

        return frozen

    def to(self, device: torch.device | str) -> None:
        """Moves all factors; an optimizer of the student has to be made after that."""
        for layer in self._layers.values():
            for factor in (*layer.down.values(), *layer.up.values()):
                factor.data = factor.data.to(device)

    def as_data(self, dtype: torch.dtype, device: torch.device | str) -> None:
        """From now on compiled blocks are not compiled again when another adapter is active.

        dtype: in which the network computes, on `device`.
        """
        if self._slots is None:
            self._slots = LoraSlots(self.network, self._layers, dtype, device)

    def remove(self) -> None:
        """Takes all adapters off: the network is the bare base."""
        if self._slots is not None:
            self._slots.remove()
        for layer in self._layers.values():
            layer.remove()

    def parameters(self) -> list[nn.Parameter]:
        """The student's factors."""
        return list(self.named_parameters().values())

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """The student's factors by the names of `state_dict`."""
        return dict(self._factors(STUDENT))

    def student(self) -> Lora:
        """A copy of the current student, float32 on the CPU, to be saved or started from.

        With a base LoRA it is the sum of both, so that it means the same on the bare base model.
        """
        student = self._lora(STUDENT)
        return stacked(self._lora(BASE_LORA), student) if BASE_LORA in self._scales else student

    def base_lora_digest(self) -> str:
        """SHA-256 of the LoRA under the student; empty without one."""
        digest = hashlib.sha256()
        for key, factor in self._factors(BASE_LORA):
            digest.update(repr((key, tuple(factor.shape))).encode())
            digest.update(factor.detach().cpu().numpy().tobytes())
        return digest.hexdigest() if BASE_LORA in self._scales else ""

    def state_dict(self) -> dict[str, Tensor]:
        """The student's factors by name, for a checkpoint."""
        return {key: factor.detach() for key, factor in self._factors(STUDENT)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Sets the student to a saved state; InputError unless its layers and ranks are the same."""
        factors = dict(self._factors(STUDENT))
        mismatched = sorted(
            key for key in factors.keys() | state.keys()
            if key not in factors or key not in state or factors[key].shape != state[key].shape
        )  # fmt: skip
        if mismatched:
            raise InputError(
                f"the saved student is another LoRA: {len(mismatched)} factors differ in name or shape "
                f"({mismatched[0]}); continue with the rank and targets of the saved run"
            )
        for key, factor in factors.items():
            factor.copy_(state[key])

    @contextmanager
    def holding(self, state: Mapping[str, Tensor]) -> Iterator[None]:
        """Temporarily sets the student to a saved state or a moving average."""
        previous = {key: factor.clone() for key, factor in self.state_dict().items()}
        self.load_state_dict(state)
        try:
            yield
        finally:
            self.load_state_dict(previous)

    def _factors(self, name: str) -> list[tuple[str, nn.Parameter]]:
        return [
            (f"{module}.{key}", factors[name])
            for module, layer in self._layers.items()
            if name in layer.down
            for key, factors in (("lora_A", layer.down), ("lora_B", layer.up))
        ]

    def _lora(self, name: str) -> Lora:
        factors = {key: factor.detach().to("cpu", copy=True) for key, factor in self._factors(name)}
        down, up = (
            {key.removesuffix(end): factor for key, factor in factors.items() if key.endswith(end)}
            for end in (".lora_A", ".lora_B")
        )
        return Lora(down, up, self._scales[name])

    def _inject(self, name: str, lora: Lora) -> None:
        if name in self._scales:
            raise ValueError(f"the network already has the adapter {name!r}")
        dtype = torch.float32 if name in (STUDENT, BASE_LORA) else self._dtype
        add_lora(self.network, self._layers, name, lora, self._device, dtype)
        self._scales[name] = lora.scale
        for factor in self.parameters():
            factor.requires_grad_(True)
        for layer in self._layers.values():
            layer.active = (BASE_LORA, STUDENT) if STUDENT in self._scales else ()

    @contextmanager
    def _active(self, name: str | None, strength: float) -> Iterator[None]:
        layers = list(self._layers.values())
        before = [layer.active for layer in layers]
        try:
            for layer in layers:
                layer.active = () if name is None else (name,)
                if name in layer.scaling:
                    layer.scaling[name] = strength * self._scales[name]
            yield
        finally:
            for layer, active in zip(layers, before, strict=True):
                layer.active = active
