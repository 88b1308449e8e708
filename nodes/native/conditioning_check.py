"""Whether a network can be asked under some conditioning, found out by asking it once; what is wrong in plain words."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import comfy.model_management as management
import torch
from torch import Tensor, nn

from ...danceopd_core.algorithm.fields import Conditioning, Sample, VelocityField
from ...danceopd_core.data.encoded_bucket import TEXT
from ...danceopd_core.errors import InputError
from ...danceopd_core.weights.linear_like import is_linear_like

FOREIGN = (RuntimeError, KeyError, TypeError, AttributeError, ValueError, IndexError, AssertionError)
"""What ComfyUI's networks raise under conditioning of another family."""
WIDTHS = (TEXT, "pooled_output")
"""Values whose last dimension the network fixes; that of others, such as masks, follows the text."""


def check(title: str, network: nn.Module, velocity: VelocityField, cond: Conditioning, x: Tensor) -> None:
    """Asks once for every kind of sample and null at a state x (1, ...); InputError if one cannot be answered."""
    seen: set[Hashable] = set()
    for sample in (part for own in cond.samples for part in (own, *own.nulls.values())):
        if (kind := _kind(sample)) not in seen:
            seen.add(kind)
            _ask(title, network, velocity, Sample(sample.values).to(x.device), x)


def _kind(sample: Sample) -> Hashable:
    def width(name: str) -> int | None:
        value = sample.values[name]
        return value.shape[-1] if name in WIDTHS and isinstance(value, Tensor) else None

    return tuple((name, width(name)) for name in sorted(sample.values))


def _ask(title: str, network: nn.Module, velocity: VelocityField, sample: Sample, x: Tensor) -> None:
    with torch.no_grad(), _misfits(network) as misfits:
        try:
            velocity(x, torch.full((1,), 0.5, device=x.device), Conditioning((sample,)))
        except FOREIGN as error:
            if isinstance(error, InputError) or management.is_oom(error):
                raise
            raise InputError.at("model.clip", _words(title, misfits, error)) from error


@contextmanager
def _misfits(network: nn.Module) -> Iterator[list[str]]:
    """Collects the layers that are given vectors of another length than they take."""
    found: list[str] = []
    hooks = [
        module.register_forward_pre_hook(_compared(name, width, found))
        for name, module in network.named_modules()
        if (width := _width(module))
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _width(module: nn.Module) -> int:
    """The length of the vectors that a layer takes; 0 if that is not fixed."""
    if is_linear_like(module):
        return module.in_features
    weight = module._parameters.get("weight")
    norm = type(module).__name__.endswith(("RMSNorm", "LayerNorm"))
    return weight.shape[-1] if norm and weight is not None else 0


def _compared(name: str, width: int, found: list[str]) -> Callable[[nn.Module, tuple[object, ...]], None]:
    def hook(module: nn.Module, inputs: tuple[object, ...]) -> None:
        given = inputs[0] if inputs else None
        if isinstance(given, Tensor) and given.shape[-1] != width:
            found.append(f"its layer {name} takes vectors of {width} numbers and gets {given.shape[-1]}")

    return hook


def _words(title: str, misfits: list[str], error: Exception) -> str:
    if misfits:
        told = misfits[-1]
    elif isinstance(error, KeyError):
        told = f"it needs {error.args[0]}, which the text encoder does not give"
    else:
        return (
            f"the MODEL ({title}) fails under what the text encoder gives ({type(error).__name__}: "
            f"{str(error).partition(chr(10))[0]}). Load the text encoder of this model, with the type that belongs to "
            "it, or look at the nodes that change the MODEL"
        )
    return (
        f"the text encoder does not belong to the MODEL ({title}): {told}. Load the text encoder of this model, "
        "with the type that belongs to it"
    )
