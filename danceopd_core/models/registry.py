"""The table of model families, and how a diffusers folder finds its own."""

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
from .loading import ModelFolder
from .quantise import check_quantise


class Family(NamedTuple):
    """A row of the registry.

    title: the family's name for people. module: of this package, imported when it is chosen; its `open_model(folder,
    index, dtype, device)` opens a ModelFolder, given what its model_index.json says, and its `spacing(steps)` is how
    the family's pipeline asks its scheduler for sigmas. pipelines: the diffusers pipeline classes, as model_index.json
    names them, each with the number of source pictures that a prompt may have. targets: endings of the names of the
    linear layers that a fresh LoRA adapts.
    """

    title: str
    module: str
    pipelines: Mapping[str, float]
    targets: tuple[str, ...]


JOINT = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""The attention of transformers that read pictures and text jointly."""
# Not `proj_out`, which would name the single blocks' and the last layer of the network alike.
FLUX_MLPS = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp")

FAMILIES = {
    "zimage": Family(
        "Z-Image",
        "zimage",
        {"ZImagePipeline": math.inf},
        ("to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3"),
    ),
    "sd3": Family("Stable Diffusion 3", "sd3", {"StableDiffusion3Pipeline": 0}, JOINT),
    "flux": Family("FLUX.1", "flux", {"FluxPipeline": 0, "FluxKontextPipeline": 1}, (*JOINT, *FLUX_MLPS)),
    "qwen": Family(
        "Qwen-Image",
        "qwen",
        {"QwenImagePipeline": 0, "QwenImageEditPipeline": 1, "QwenImageEditPlusPipeline": math.inf},
        (*JOINT, "img_mlp.net.0.proj", "img_mlp.net.2"),
    ),
}


def open_backbone(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    components: Mapping[str, Path] | None = None,
    quantise: str | None = None,
) -> Backbone:
    """The frozen backbone in a local diffusers folder; InputError if it is none, or of an unknown family.

    components: single weight files, by the part (`COMPONENTS`) whose weights they stand for; of that part the
    folder need only hold the configuration. quantise: the transformer's linear layers, by a name of
    `quantise.QUANTISATIONS`; not those of a single file.
    """
    folder, files = Path(folder), dict(components or {})
    family, index = family_of(folder)
    idle = sorted(part for part in files if part not in COMPONENTS or (index.get(part) or [None])[0] is None)
    if idle:
        parts = ", ".join(part for part in COMPONENTS if (index.get(part) or [None])[0] is not None)
        pipeline = index["_class_name"]
        raise InputError(f"components: the {pipeline} in {folder} has no {', '.join(idle)}: it has {parts}")
    if quantise is not None:
        if "transformer" in files:
            raise InputError(f"{files['transformer']} is a single file, which is not quantised: give a whole folder")
        check_quantise(quantise, device)
    module = import_module(f".{family.module}", __package__)
    return module.open_model(ModelFolder(folder, files, quantise), index, dtype, device)


def family_of(folder: Path) -> tuple[Family, Mapping[str, Any]]:
    """The family that opens a diffusers folder, and what its model_index.json says; InputError if there is none."""
    file = folder / "model_index.json"
    if not file.is_file():
        raise InputError(
            f"{folder} is not a diffusers model folder: it has no model_index.json. Give the folder of a "
            "whole pipeline (transformer, text encoder, VAE, tokenizer, scheduler), not one file or subfolder"
        )
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
        found = index["_class_name"]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file} does not name its pipeline (_class_name): {error!r}. Fetch it again") from error
    for family in FAMILIES.values():
        if found in family.pipelines:
            return family, index
    table = "; ".join(f"{name}: {', '.join(family.pipelines)}" for name, family in FAMILIES.items())
    raise InputError(f"{file} holds a {found}, which no family opens. Known families are {table}")


def default_targets(pipeline: str) -> tuple[str, ...]:
    """Those of the family that opens a diffusers pipeline of this class."""
    for family in FAMILIES.values():
        if pipeline in family.pipelines:
            return family.targets
    raise InputError(f"no family opens a {pipeline}: there are {', '.join(FAMILIES)}")
