"""What the spectra of a LoRA say of it: dead layers, spikes, NaN, and the verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from ..weights.lora import Lora
from ..weights.safetensors_io import listed
from .spectrum import LayerSpectrum, layer_spectrum

State = Literal["healthy", "doubtful", "dead", "broken"]

SPIKE_SHARE = 0.9
"""A layer may be a spike if one singular value has this part of its squared norm. A low rank alone is no illness: over
the embedded LoRAs it is 0.07 to 0.96."""
SPIKE_FACTOR = 5.0
"""And if that singular value is this many times the median layer's largest; over the embedded LoRAs it is 4 at most."""
SPIKE_RANK = 4
"""Below this rank, every layer is carried by few directions."""
DEAD_SHARE = 0.1
"""Up to this part of dead layers is told, but no reason for doubt: what the last block of many transformers does with
the text reaches no output, so no gradient reaches it."""
DEAD_PART = 1e-7
"""A layer is dead if its norm is below this part of the median one's: float32 has no more digits."""


@dataclass(frozen=True)
class Health:
    """The layers of a LoRA and what is found in them. dead, spikes, broken: names of layers."""

    layers: tuple[LayerSpectrum, ...]
    dead: tuple[str, ...]
    spikes: tuple[str, ...]
    broken: tuple[str, ...]

    @property
    def state(self) -> State:
        if self.broken or not self.layers:
            return "broken"
        if len(self.dead) == len(self.layers):
            return "dead"
        return "doubtful" if self.spikes or len(self.dead) > DEAD_SHARE * len(self.layers) else "healthy"

    @property
    def rank(self) -> int:
        """The largest of its layers."""
        return max((layer.rank for layer in self.layers), default=0)

    @property
    def norm(self) -> float:
        """Of the whole change."""
        return sum(layer.norm**2 for layer in self.layers) ** 0.5

    @property
    def effective(self) -> float:
        """Directions over which the median layer that is alive is spread."""
        return median([layer.effective for layer in self.layers if layer.norm] or [0.0])

    def verdict(self) -> str:
        """One sentence of what it is, and one for each thing that was found."""
        many = len(self.layers)
        if not many:
            return "broken: it has no layers"
        if self.broken:
            return f"broken: {_layers(self.broken, many, 'hold', 'NaN or infinity')}"
        if self.state == "dead":
            return f"dead: its {many} layers change nothing (their product is zero), so no picture changes with it"
        told = [f"{self.state}: {many} layers of rank {self.rank}, each spread over {self.effective:.1f} directions"]
        if self.dead:
            told.append(f"{_layers(self.dead, many, 'change', 'nothing')}{'' if self._much_dead else ', as is usual'}")
        if self.spikes:
            told.append(
                f"in {listed(self.spikes)} one direction carries the layer and is more than {SPIKE_FACTOR:g} times as "
                "strong as the others' strongest: stacked with other LoRAs this one may spoil pictures; a lower "
                "learning rate or fewer updates help"
            )
        return ". ".join(told)

    @property
    def _much_dead(self) -> bool:
        return len(self.dead) > DEAD_SHARE * len(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the verdict and the figures behind it, without the spectra."""
        return {
            "state": self.state,
            "verdict": self.verdict(),
            "layers": len(self.layers),
            "rank": self.rank,
            "norm": self.norm,
            "effective_rank": self.effective,
            "dead": list(self.dead),
            "spikes": list(self.spikes),
            "broken": list(self.broken),
        }


def examine(lora: Lora) -> Health:
    """The health of a LoRA. A rank of 16 takes milliseconds, a rank of 128 of a large model some seconds."""
    layers = [layer_spectrum(module, down, lora.up[module], lora.scale) for module, down in sorted(lora.down.items())]
    return health_of(layers)


def health_of(layers: Sequence[LayerSpectrum]) -> Health:
    """What these layers say."""
    sound = [layer for layer in layers if not layer.broken]
    usual = median([layer.norm for layer in sound if layer.norm] or [0.0])
    strongest = median([layer.top for layer in sound if layer.norm] or [0.0])
    dead = [layer for layer in sound if layer.norm <= usual * DEAD_PART]
    spikes = [
        layer
        for layer in sound
        if layer.rank >= SPIKE_RANK and layer.share >= SPIKE_SHARE and layer.top > SPIKE_FACTOR * strongest
    ]
    return Health(tuple(layers), _names(dead), _names(spikes), _names([layer for layer in layers if layer.broken]))


def _names(layers: Sequence[LayerSpectrum]) -> tuple[str, ...]:
    return tuple(layer.module for layer in layers)


def _layers(names: Sequence[str], many: int, verb: str, what: str) -> str:
    return f"{len(names)} of {many} layers {verb}{'s' * (len(names) == 1)} {what} ({listed(names)})"
