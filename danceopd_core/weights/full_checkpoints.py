"""Full checkpoints as teachers: a frozen copy of the network with the weights of a fine-tuned transformer."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from ..errors import InputError
from .key_conversion import (
    MODEL_PARTS,
    NEIGHBOURS,
    ORIGINAL_KEYS,
    converted_shapes,
    converter,
    refuse_quantised,
    spares,
    weights_of_network,
)
from .lora_header import plain_variants
from .lora_keys import COMPILED
from .lora_layers import has_adapters
from .safetensors_io import finite, listed, open_header, open_safetensors, shards

PREFIXES = ("", *MODEL_PARTS, "diffusion_model.", "transformer.", "model.", "module.")


class _Weight(NamedTuple):
    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str


def load_full_checkpoint(network: nn.Module, path: str | Path, place: str | None = None) -> nn.Module:
    """A frozen copy of `network` with the weights of a checkpoint, on its device and in its dtype.

    They come from the mapped file one by one. place: device of those that the checkpoint changes; None: the network's.
    Weights that the checkpoint does not change share their storage with `network`. InputError as for
    `checked_weights`, and for a quantised network; ValueError if adapters have been injected.
    """
    if has_adapters(network):
        raise ValueError("the network has adapters already: load full checkpoints before they are injected")
    if is_quantised(network):
        raise InputError(f"{path} cannot be a teacher of a quantised model: open the model unquantised, or give a LoRA")
    expected = network.state_dict()
    changed: dict[str, Tensor] = {}
    for name, tensor in checked_weights(network, path):
        base = expected[name]
        tensor = tensor.to(base.device, base.dtype, copy=True)  # out of the mapped file
        if not tensor.equal(base):
            changed[name] = tensor if place is None else tensor.to(place)
    teacher = _copy_sharing_storage(network)
    for name, tensor in changed.items():
        parent, _, attribute = name.rpartition(".")
        module = teacher.get_submodule(parent)
        setattr(module, attribute, nn.Parameter(tensor) if attribute in module._parameters else tensor)
    return teacher.requires_grad_(False).eval()


def checked_weights(network: nn.Module, path: str | Path, fp8: bool = True) -> Iterable[tuple[str, Tensor]]:
    """The checkpoint's weights for all parameters of `network` by name, still memory-mapped.

    `path` is a safetensors file, a diffusers transformer folder (sharded or not), or a pipeline folder, under
    diffusers' names or those of the original model where they can be converted (Z-Image, Stable Diffusion 3,
    FLUX.1, FLUX.2, Krea 2, Qwen-Image-2.1, VAEs), as in ComfyUI's files. From a ComfyUI file of a whole model
    only this part is read.
    Weights that are known to be unused are passed over, whatever they hold. fp8: whether plain 8-bit floats are
    accepted. InputError, naming the file and the first keys, unless names and shapes agree exactly and all weights are
    finite, and for quantised weights.
    """
    named, convert = _matched(network, path, fp8)
    tensors = _tensors(named)
    return convert(dict(tensors)).items() if convert else tensors


def check_weights(network: nn.Module | None, path: str | Path, fp8: bool = True) -> None:
    """InputError as of `checked_weights`, as far as the headers tell: weights that pass can still hold NaN.

    network: may be on the meta device; None: unknown, and only files that no network can use are refused.
    """
    if network is not None:
        _matched(network, path, fp8)
        return
    weights = _weights(weight_files(Path(path)))
    used = [weight for key, weight in weights.items() if not key.startswith(NEIGHBOURS[1:])]
    refuse_quantised(path, {weight.key: weight.dtype for weight in used}, fp8)


def _matched(
    network: nn.Module, path: str | Path, fp8: bool
) -> tuple[dict[str, _Weight], Callable[[dict[str, Tensor]], dict[str, Tensor]] | None]:
    """The weights that are used by their names without prefix, and how they are converted to the network's."""
    weights = _weights(weight_files(Path(path)))
    expected = weights_of_network(network)
    original = ORIGINAL_KEYS.get(type(network).__name__)

    def matches(prefix: str) -> tuple[int, int, int]:
        """Keys that become diffusers' names without it, those of the original model, then all that have it."""
        matched = sum(f"{prefix}{name}" in weights for name in expected)
        own = [key for key in weights if key.startswith(prefix)]
        return matched, sum(original in key for key in own) if original else 0, len(own) if prefix else 0

    prefix = max(PREFIXES, key=matches)
    beside = tuple(part for part in NEIGHBOURS if part != prefix)
    weights = {
        key: weight
        for key, weight in weights.items()
        if not key.startswith(beside) or key.removeprefix(prefix) in expected
    }
    named = {
        key.removeprefix(prefix) if key.startswith(prefix) else f"(no {prefix}){key}": weights[key] for key in weights
    }
    unused = spares(path, network, named.keys() - expected.keys())
    named = {name: weight for name, weight in named.items() if name not in unused}
    refuse_quantised(path, {weight.key: weight.dtype for weight in named.values()}, fp8)
    shapes = {name: weight.shape for name, weight in named.items()}
    convert = converter(path, network, named)
    keys = {name: weight.key for name, weight in named.items()}
    _check(path, expected, converted_shapes(convert, shapes) if convert else shapes, keys)
    return named, convert


def _weights(files: list[Path]) -> dict[str, _Weight]:
    found = {}
    for file in files:
        with open_header(file) as handle:
            for key in handle.keys():  # noqa: SIM118 (a safetensors handle, no dict)
                part = handle.get_slice(key)
                found[key.replace(COMPILED, "")] = _Weight(file, key, tuple(part.get_shape()), str(part.get_dtype()))
    return found


def _tensors(named: dict[str, _Weight]) -> Iterator[tuple[str, Tensor]]:
    for file in {weight.file: None for weight in named.values()}:
        with open_safetensors(file) as handle:
            for name, weight in named.items():
                if weight.file != file:
                    continue
                tensor = handle.get_tensor(weight.key)
                if not finite(tensor):
                    raise InputError(f"{file} cannot be used: {weight.key} holds NaN or infinity; download it again")
                yield name, tensor


def is_quantised(network: nn.Module) -> bool:
    """Whether a network without adapters has quantised weights."""
    return any(type(p) is not nn.Parameter for p in network.parameters())


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a checkpoint: the file itself, or those of a folder (its shards by their index)."""
    if not os.path.isdir(path):
        return [path]
    folder = path / "transformer" if (path / "transformer").is_dir() else path
    indices = sorted(folder.glob("*.safetensors.index.json")) or sorted(folder.glob("*.safetensors.index.*.json"))
    if len(indices) == 1:
        return shards(indices[0])
    files = plain_variants(sorted(folder.glob("*.safetensors")))
    if len(files) != 1 or indices:
        raise InputError(
            f"{folder} has {len(files)} safetensors files and {len(indices)} indices "
            f"({listed(file.name for file in [*files, *indices])}): give the one checkpoint file"
        )
    return files


def _check(
    path: str | Path, expected: dict[str, Tensor], found: dict[str, tuple[int, ...]], keys: dict[str, str]
) -> None:
    """InputError unless names and shapes agree. found: shapes by the network's names. keys: their names in the file."""
    missing = expected.keys() - found.keys()
    unknown = {keys.get(name, name) for name in found.keys() - expected.keys()}
    mismatched = [
        f"{name}: {found[name]} for {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if found[name] != tuple(expected[name].shape)
    ]
    faults = {"missing": missing, "unknown": unknown, "of another shape": mismatched}
    details = "; ".join(f"{len(names)} {fault} ({listed(names)})" for fault, names in faults.items() if names)
    if details:
        raise InputError(
            f"{path} is not a checkpoint of this network: expected {len(expected)} weights, found {len(found)}; "
            f"{details}. Give weights of this very model, under diffusers' or the original names"
        )


def _copy_sharing_storage(network: nn.Module) -> nn.Module:
    """A copy that shares storage but has separate parameter objects, so that it can move between devices alone."""
    memo: dict[int, object] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in network.parameters()}
    memo |= {id(buffer): buffer.detach() for buffer in network.buffers()}
    return copy.deepcopy(network, memo)
