"""Full checkpoints as teachers: a frozen copy of the network with the weights of a fine-tuned transformer."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from ..errors import InputError
from .key_conversion import MODEL_PARTS, converted_shapes, converter, refuse_quantised
from .lora_layers import has_adapters
from .safetensors_io import finite, listed, open_safetensors, shards

PREFIXES = ("", *MODEL_PARTS[:2], "diffusion_model.", "transformer.", "model.", "module.", "vae.")


class _Weight(NamedTuple):
    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str


def load_full_checkpoint(network: nn.Module, path: str | Path) -> nn.Module:
    """A frozen copy of `network` with the weights of a checkpoint, on its device and in its dtype.

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
            changed[name] = tensor
    teacher = _copy_sharing_storage(network)
    for name, tensor in changed.items():
        parent, _, attribute = name.rpartition(".")
        module = teacher.get_submodule(parent)
        setattr(module, attribute, nn.Parameter(tensor) if attribute in module._parameters else tensor)
    return teacher.requires_grad_(False).eval()


def checked_weights(network: nn.Module, path: str | Path, fp8: bool = True) -> Iterable[tuple[str, Tensor]]:
    """The checkpoint's weights for all parameters of `network` by name, still memory-mapped.

    `path` is a safetensors file, a diffusers transformer folder (sharded or not), or a pipeline folder, under
    diffusers' names or those of the original model where diffusers can convert them (Z-Image, Stable Diffusion 3,
    FLUX.1, AutoencoderKL), as in ComfyUI's files. From a ComfyUI file of a whole model only this part is read.
    fp8: whether plain 8-bit floats are accepted. InputError, naming the file and the first keys, unless names and
    shapes agree exactly and all weights are finite, and for quantised weights.
    """
    weights = _weights(weight_files(Path(path)))
    expected = network.state_dict()

    def matches(prefix: str) -> tuple[int, int]:
        """Keys that become diffusers' names without it, then keys that have it: original names may match none."""
        matched = sum(f"{prefix}{name}" in weights for name in expected)
        return matched, sum(key.startswith(prefix) for key in weights if prefix)

    prefix = max(PREFIXES, key=matches)
    if prefix in MODEL_PARTS:
        others = tuple(part for part in MODEL_PARTS if part != prefix)
        weights = {key: weight for key, weight in weights.items() if not key.startswith(others)}
    refuse_quantised(path, {key: weight.dtype for key, weight in weights.items()}, fp8)
    named = {
        key.removeprefix(prefix) if key.startswith(prefix) else f"(no {prefix}){key}": weights[key] for key in weights
    }
    shapes = {name: weight.shape for name, weight in named.items()}
    convert = converter(path, network, named)
    keys = {name: weight.key for name, weight in named.items()}
    _check(path, expected, converted_shapes(convert, shapes) if convert else shapes, keys)
    tensors = _tensors(named)
    return convert(dict(tensors)).items() if convert else tensors


def _weights(files: list[Path]) -> dict[str, _Weight]:
    found = {}
    for file in files:
        with open_safetensors(file) as handle:
            for key in handle.keys():  # noqa: SIM118 (a safetensors handle, no dict)
                part = handle.get_slice(key)
                found[key] = _Weight(file, key, tuple(part.get_shape()), str(part.get_dtype()))
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
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) == 1:
        return shards(indices[0])
    files = sorted(folder.glob("*.safetensors"))
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
