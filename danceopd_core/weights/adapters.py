"""One frozen network, many LoRA fields: the student and its LoRA teachers share every base weight.

The student is the adapter at rest; a teacher is active only inside its own call, under no_grad. With gradient
checkpointing the backward pass runs layers again, with whatever is active then, so nothing may be switched on
between the student's forward and its backward. The switch writes two attributes of peft's layers: peft's own
`set_adapter` also toggles requires_grad, which takes the student's gradients away without an error.
"""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ..algorithm.fields import Conditioning, VelocityField
from ..errors import InputError
from .lora_io import Lora, Shapes, stacked

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

STUDENT = "student"
BASE_LORA = "base_lora"  # the frozen LoRA that a student may be trained on top of


def linear_shapes(network: nn.Module) -> dict[str, tuple[int, int]]:
    """(out, in) of every linear layer by module name, the same before and after adapters are put in."""
    return {
        name.removesuffix(".base_layer"): (module.out_features, module.in_features)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and not isinstance(module, _Factor)
    }


def fresh_lora(shapes: Shapes, rank: int, alpha: float, targets: Sequence[str], generator: torch.Generator) -> Lora:
    """A LoRA that changes nothing yet: `down` drawn as peft's default (Kaiming uniform), `up` zero.

    `targets` are module names or their endings; InputError for one that names no linear layer.
    """
    if rank < 1 or not alpha > 0:
        raise InputError(f"a LoRA of rank {rank} and alpha {alpha:g} cannot learn: both must be positive")
    chosen = [module for module in shapes if any(_names(target, module) for target in targets)]
    idle = [target for target in targets if not any(_names(target, module) for module in shapes)]
    if idle or not chosen:
        endings = sorted({re.sub(r"^(.*\.\d+\.|.*\.(?=\D))", "", module) for module in shapes})
        raise InputError(
            f"targets: no linear layer is named {idle or 'by no targets'}; names end in: {', '.join(endings)}"
        )
    down, up = {}, {}
    for module in chosen:
        outputs, inputs = shapes[module]
        bound = 1 / math.sqrt(inputs)
        down[module] = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
        up[module] = torch.zeros(outputs, rank)
    return Lora(down, up, alpha / rank)


class Adapters:
    """LoRA adapters in `network`, which is frozen; only the student's factors (float32) require gradients.

    Without a student the network at rest is the bare base.
    """

    def __init__(self, network: nn.Module) -> None:
        if any(name.endswith(".base_layer") for name, _ in network.named_modules()):
            raise ValueError("the network already has adapters: one Adapters holds them all")
        self.network = network.requires_grad_(False)
        self.shapes: Shapes = linear_shapes(network)
        self._scales: dict[str, float] = {}
        self._layers: dict[str, LoraLayer] = {}

    def add_teacher(self, lora: Lora) -> str:
        """Puts a frozen LoRA in, in the network's dtype, and returns the name by which `field` finds it."""
        name = f"teacher_{sum(other != STUDENT for other in self._scales)}"
        self._inject(name, lora)
        return name

    def start_student(self, lora: Lora, base_lora: Lora | None = None) -> None:
        """Puts the LoRA to train in: a `fresh_lora`, or one of `read_lora`, to train on at its ranks.

        base_lora: a LoRA that stays frozen under it. The student's field is then that of both.
        """
        if base_lora is not None:
            self._inject(BASE_LORA, base_lora)
        self._inject(STUDENT, lora)

    def field(self, velocity: VelocityField, name: str | None, strength: float = 1.0) -> VelocityField:
        """`velocity` under one adapter: STUDENT, a teacher at a strength, or None for the bare base.

        Only the student's field carries gradients.
        """
        if name is not None and name not in self._scales:
            raise ValueError(f"there is no adapter {name!r}; there are {sorted(self._scales)}")
        if name == STUDENT:
            if strength != 1:
                raise ValueError("the student is the network at rest: its strength is always 1")
            return velocity

        def frozen(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
            with torch.no_grad(), self._active(name, strength):
                return velocity(x, sigma, cond)

        return frozen

    def parameters(self) -> list[nn.Parameter]:
        """The student's factors."""
        return [factor for _, factor in self._student()]

    def student(self) -> Lora:
        """A copy of the student as it stands, float32 on the CPU, to be written or started from.

        With a LoRA under it that is both as one, so that it means the same on the bare base.
        """
        own = self._lora(STUDENT)
        return stacked(self._lora(BASE_LORA), own) if BASE_LORA in self._scales else own

    def base_lora_digest(self) -> str:
        """SHA-256 of the LoRA under the student; empty without one."""
        told = hashlib.sha256()
        for key, factor in self._factors(BASE_LORA):
            told.update(repr((key, tuple(factor.shape))).encode())
            told.update(factor.detach().cpu().numpy().tobytes())
        return told.hexdigest() if BASE_LORA in self._scales else ""

    def state_dict(self) -> dict[str, Tensor]:
        """The student's factors by name, for a checkpoint."""
        return {key: factor.detach() for key, factor in self._student()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Sets the student to a saved state; InputError unless its layers and ranks are the same."""
        own = dict(self._student())
        odd = sorted(
            key for key in own.keys() | state.keys()
            if key not in own or key not in state or own[key].shape != state[key].shape
        )  # fmt: skip
        if odd:
            raise InputError(
                f"the saved student is another LoRA: {len(odd)} factors differ in name or shape ({odd[0]}); "
                "continue with the rank and targets of the saved run"
            )
        for key, factor in own.items():
            factor.copy_(state[key])

    @contextmanager
    def holding(self, state: Mapping[str, Tensor]) -> Iterator[None]:
        """The student at a saved state or a moving average for a while; then as it was."""
        kept = {key: factor.clone() for key, factor in self.state_dict().items()}
        self.load_state_dict(state)
        try:
            yield
        finally:
            self.load_state_dict(kept)

    def _student(self) -> list[tuple[str, nn.Parameter]]:
        return self._factors(STUDENT)

    def _factors(self, name: str) -> list[tuple[str, nn.Parameter]]:
        return [
            (f"{module}.{factor}", getattr(layer, factor)[name].weight)
            for module, layer in self._layers.items()
            if name in layer.lora_A
            for factor in ("lora_A", "lora_B")
        ]

    def _lora(self, name: str) -> Lora:
        factors = {key: factor.detach().to("cpu", copy=True) for key, factor in self._factors(name)}
        down, up = (
            {key.removesuffix(end): factor for key, factor in factors.items() if key.endswith(end)}
            for end in (".lora_A", ".lora_B")
        )
        return Lora(down, up, self._scales[name])

    def _inject(self, name: str, lora: Lora) -> None:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        if name in self._scales:
            raise ValueError(f"the network already has the adapter {name!r}")
        targets = "|".join(re.escape(module) for module in lora.down)
        config = LoraConfig(r=1, lora_alpha=1, lora_dropout=0.0, target_modules=f"({targets})")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # many adapters are the point
            # On the meta device peft draws no random weights; the factors are put in below.
            inject_adapter_in_model(config, self.network, adapter_name=name, low_cpu_mem_usage=True)
        self._layers = {module: layer for module, layer in self.network.named_modules() if isinstance(layer, LoraLayer)}
        for module, down in lora.down.items():
            layer = self._layers[module]
            base = cast(Tensor, layer.get_base_layer().weight)
            own = _dtype_of(layer)
            half = name not in (STUDENT, BASE_LORA) and own in (torch.bfloat16, torch.float16)
            dtype = own if half else torch.float32
            layer.lora_A[name] = _Factor(down.to(base.device, dtype, copy=True))
            layer.lora_B[name] = _Factor(lora.up[module].to(base.device, dtype, copy=True))
            layer.r[name], layer.lora_alpha[name] = len(down), len(down) * lora.scale
            layer.scaling[name] = lora.scale
            layer.cast_input_dtype_enabled = False  # _Factor casts its weight instead
        self._scales[name] = lora.scale
        # peft makes what it puts in active and trainable; back to rest.
        self.network.requires_grad_(False)
        for factor in self.parameters():
            factor.requires_grad_(True)
        rest = [part for part in (BASE_LORA, STUDENT) if part in self._scales]
        for layer in self._layers.values():
            layer._disable_adapters, layer._active_adapter = STUDENT not in self._scales, list(rest)

    @contextmanager
    def _active(self, name: str | None, strength: float) -> Iterator[None]:
        layers = list(self._layers.values())
        before = [(layer._disable_adapters, layer._active_adapter) for layer in layers]
        try:
            for layer in layers:
                layer._disable_adapters = name is None
                if name is not None:
                    layer._active_adapter = [name]
                    if name in layer.scaling:
                        layer.scaling[name] = strength * self._scales[name]
            yield
        finally:
            for layer, (disabled, active) in zip(layers, before, strict=True):
                layer._disable_adapters, layer._active_adapter = disabled, active


class _Factor(nn.Linear):
    """A factor that keeps its dtype and multiplies in its input's.

    peft would copy the input to float32 instead, once for each adapted layer, and keep that for the backward.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype))


def _dtype_of(layer: LoraLayer) -> torch.dtype:
    """The dtype in which the layer under an adapter multiplies; 4-bit weights are packed in another."""
    base = layer.get_base_layer()
    own = cast(Tensor, base.weight).dtype
    return own if own.is_floating_point else cast(torch.dtype, base.compute_dtype)


def _names(target: str, module: str) -> bool:
    return module == target or module.endswith(f".{target}")
