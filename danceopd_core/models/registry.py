"""The table of model families, and opening a diffusers folder with the family of its pipeline."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import InputError
from .backbone import COMPONENTS, Backbone
from .loading import ModelFolder, load_module
from .quantise import check_quantise


class Family(NamedTuple):
    """A row of the registry.

    title: display name. module: of this package, imported when it is chosen; its `open_model(folder, index, dtype,
    device)` opens a ModelFolder, given the content of its model_index.json, and its `spacing(steps)` returns the
    arguments of `set_timesteps` with which the family's pipeline requests its sigmas. pipelines: the diffusers pipeline
    classes, as in model_index.json, each with the number of source pictures that a prompt may have. targets:
    module-name endings of the linear layers that a fresh LoRA adapts.
    """

    title: str
    module: str
    pipelines: Mapping[str, float]
    targets: tuple[str, ...]


JOINT_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Attention layers of the transformers with joint attention over image and text tokens."""
# Not `proj_out`: that ending matches the last layer of the network as well as those of the single blocks.
FLUX_MLPS = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp")

FAMILIES = {
    "zimage": Family(
        "Z-Image",
        "zimage",
        {"ZImagePipeline": math.inf},
        ("to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3"),
    ),
    "sd3": Family("Stable Diffusion 3", "sd3", {"StableDiffusion3Pipeline": 0}, JOINT_ATTENTION),
    "flux": Family("FLUX.1", "flux", {"FluxPipeline": 0, "FluxKontextPipeline": 1}, (*JOINT_ATTENTION, *FLUX_MLPS)),
    "qwen": Family(
        "Qwen-Image",
        "qwen",
        {"QwenImagePipeline": 0, "QwenImageEditPipeline": 1, "QwenImageEditPlusPipeline": math.inf},
        (*JOINT_ATTENTION, "img_mlp.net.0.proj", "img_mlp.net.2"),
    ),
}


def open_backbone(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    components: Mapping[str, Path] | None = None,
    quantise: str | None = None,
    empty_network: bool = False,
) -> Backbone:
    """Opens a local diffusers folder as a frozen backbone; InputError if it is none, or of an unknown family.

    components: single weight files, by the part (of `COMPONENTS`) whose weights they replace; the folder then needs
    only the configuration of that part. quantise: quantisation of the transformer's linear layers, a name of
    `quantise.QUANTISATIONS`; not with a single file for the transformer. empty_network: opens the transformer without
    its weights, on the meta device, for `load_network` to bring them later.
    """
    folder, files = Path(folder), dict(components or {})
    family, index = family_of(folder)
    unknown = sorted(part for part in files if part not in COMPONENTS or (index.get(part) or [None])[0] is None)
    if unknown:
        parts = ", ".join(part for part in COMPONENTS if (index.get(part) or [None])[0] is not None)
        pipeline = index["_class_name"]
        raise InputError(f"components: the {pipeline} in {folder} has no {', '.join(unknown)}: it has {parts}")
    if quantise is not None:
        if "transformer" in files:
            raise InputError(
                f"{files['transformer']} is a single file, which is not quantised: use the transformer of a folder"
            )
        check_quantise(quantise, device)
    module = import_module(f".{family.module}", __package__)
    return module.open_model(ModelFolder(folder, files, quantise, empty_network), index, dtype, device)


def load_network(
    backbone: Backbone,
    folder: Path,
    dtype: torch.dtype,
    device: torch.device | str,
    components: Mapping[str, Path],
    quantise: str | None,
) -> Backbone:
    """A backbone that was opened with `empty_network`, with the weights of its transformer. Arguments as there."""
    files = ModelFolder(folder, dict(components), quantise)
    return backbone.with_network(load_module(type(backbone.network), files, "transformer", dtype, device))


def family_of(folder: Path) -> tuple[Family, Mapping[str, Any]]:
    """The family of a diffusers folder, and the content of its model_index.json; InputError if there is none."""
    file = folder / "model_index.json"
    if not file.is_file():
        raise InputError(
            f"{folder} is not a diffusers model folder: it has no model_index.json. Give the folder of a "
            "whole pipeline (transformer, text encoder, VAE, tokenizer, scheduler), not one file or subfolder"
        )
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
        pipeline = index["_class_name"]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file} does not name its pipeline (_class_name): {error!r}. Download it again") from error
    for family in FAMILIES.values():
        if pipeline in family.pipelines:
            return family, index
    table = "; ".join(f"{name}: {', '.join(family.pipelines)}" for name, family in FAMILIES.items())
    raise InputError(f"{file} is of a {pipeline}, which no family opens. Known families are {table}")


def default_targets(pipeline: str) -> tuple[str, ...]:
    """The default LoRA targets of the family that opens a diffusers pipeline of this class."""
    for family in FAMILIES.values():
        if pipeline in family.pipelines:
            return family.targets
    raise InputError(f"no family opens a {pipeline}: there are {', '.join(FAMILIES)}")
