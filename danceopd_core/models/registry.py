"""The table of model families, and opening a diffusers folder with the family of its pipeline."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..errors import InputError
from .agreement import disagreements
from .backbone import COMPONENTS, Backbone
from .loading import ModelFolder, at_least, check_part, empty_part, frozen, load_module
from .part_files import read_settings
from .part_rules import INDICES, PARTS
from .quantise import check_quantise
from .rules import faults


class Family(NamedTuple):
    """A row of the registry.

    title: display name. module: of this package, imported when it is chosen; its `open_model(folder, index, dtype,
    device)` opens a ModelFolder, given the content of its model_index.json, and its `spacing(steps, index)` returns the
    arguments of `set_timesteps` with which the pipeline of that index requests its sigmas. pipelines: the diffusers
    classes, as in model_index.json, each with the number of source pictures that a prompt may have. targets:
    module-name endings of the linear layers that a fresh LoRA adapts. needs: the first release of diffusers that has
    the pipelines; "": every one that the project runs on.
    """

    title: str
    module: str
    pipelines: Mapping[str, float]
    targets: tuple[str, ...]
    needs: str = ""


JOINT_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Attention layers of the transformers with joint attention over image and text tokens."""
# Not `proj_out`: that ending matches the last layer of the network as well as those of the single blocks.
FLUX_MLPS = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp")
FLUX2_MLPS = ("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out")
# A single block is these two layers: query, key, value and MLP in one, and what follows them in one.
FLUX2_SINGLE = ("attn.to_qkv_mlp_proj", "attn.to_out")

MAY_LACK = ("text_encoder_3", "tokenizer_3")
"""Parts that only Stable Diffusion 3 has, and does without if its index says so."""
LIBRARIES = ("diffusers", "transformers")

FAMILIES = {
    "zimage": Family(
        "Z-Image",
        "zimage",
        {"ZImagePipeline": math.inf},
        ("to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3"),
    ),
    "sd3": Family("Stable Diffusion 3", "sd3", {"StableDiffusion3Pipeline": 0}, JOINT_ATTENTION),
    "flux": Family("FLUX.1", "flux", {"FluxPipeline": 0, "FluxKontextPipeline": 1}, (*JOINT_ATTENTION, *FLUX_MLPS)),
    "flux2": Family(
        "FLUX.2 klein",
        "flux2",
        {"Flux2KleinPipeline": math.inf},
        (*JOINT_ATTENTION, *FLUX2_MLPS, *FLUX2_SINGLE),
        needs="0.37",
    ),
    "qwen": Family(
        "Qwen-Image",
        "qwen",
        {"QwenImagePipeline": 0, "QwenImageEditPipeline": 1, "QwenImageEditPlusPipeline": math.inf},
        (*JOINT_ATTENTION, "img_mlp.net.0.proj", "img_mlp.net.2"),
    ),
    "krea2": Family(
        "Krea 2",
        "krea2",
        {"Krea2Pipeline": 0},
        ("to_q", "to_k", "to_v", "to_gate", "to_out.0", "ff.gate", "ff.up", "ff.down"),
        needs="0.39",
    ),
    "qwen21": Family(
        "Qwen-Image-2.1",
        "qwen21",
        {"QwenImage21Pipeline": math.inf},
        ("to_q", "to_k", "to_v", "to_out.0", "img_mlp.gate_layer", "img_mlp.proj", "img_mlp.out"),
        needs="0.41",
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
    unknown = sorted(part for part in files if part not in COMPONENTS or absent(index, part))
    if unknown:
        parts = ", ".join(part for part in COMPONENTS if not absent(index, part))
        pipeline = index["_class_name"]
        raise InputError(f"components: the {pipeline} in {folder} has no {', '.join(unknown)}: it has {parts}")
    if quantise is not None:
        if "transformer" in files:
            raise InputError(
                f"{files['transformer']} is a single file, which is not quantised: use the transformer of a folder"
            )
        check_quantise(quantise, device)
    for fault in folder_faults(folder, files):
        raise InputError(fault)
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
    if not os.path.lexists(file):
        raise InputError(
            f"{folder} is not a diffusers model folder: it has no model_index.json. Give the folder of a "
            "whole pipeline (transformer, text encoder, VAE, tokenizer, scheduler), not one file or subfolder"
        )
    index = read_settings(file)
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str):
        raise InputError(f"{file} does not name its pipeline (_class_name). Download it again")
    for family in FAMILIES.values():
        if pipeline in family.pipelines:
            if family.needs and not at_least("diffusers", family.needs):
                raise InputError(
                    f"{file} is of a {pipeline}, which needs diffusers {family.needs}, and {version('diffusers')} is "
                    f"installed: pip install -U 'diffusers>={family.needs}'"
                )
            _check_index(file, index)
            return family, index
    table = "; ".join(f"{name}: {', '.join(family.pipelines)}" for name, family in FAMILIES.items())
    raise InputError(f"{file} is of a {pipeline}, which no family opens. Known families are {table}")


def _check_index(file: Path, index: Mapping[str, Any]) -> None:
    """InputError unless every part is of a class of diffusers or transformers, or absent, and settings are usable."""
    rules = INDICES.get(index["_class_name"], {})
    if found := list(faults(index, rules)):
        raise InputError(f"{file} is no index of a model that can be opened: {'; '.join(found)}. Download it again")
    for part, named in index.items():
        if part.startswith("_") or part in rules or not isinstance(named, list | dict):
            continue  # a setting of the pipeline
        if named == [None, None]:
            continue
        if not (isinstance(named, list) and len(named) == 2 and all(isinstance(name, str) for name in named)):
            raise InputError(f"{file}: {part} does not name a library and a class. Download it again")
        if named[0] not in LIBRARIES:
            raise InputError(
                f"{file}: {part} is of {named[0]}, and parts are read with {' and '.join(LIBRARIES)} only: give "
                "another copy of the model"
            )


def folder_faults(folder: Path, components: Mapping[str, Path] | None = None) -> Iterator[str]:
    """A line for each part of a folder that cannot be opened, as far as its settings and headers tell.

    components: as of `open_backbone`. InputError for an index that cannot be read.
    """
    family, index = family_of(folder)
    opened, parts = ModelFolder(folder, dict(components or {})), {"index": index}
    for part, name in PARTS[family.module].items():
        if part in MAY_LACK and absent(index, MAY_LACK[0]):
            continue
        if part == "processor" and not family.pipelines[index["_class_name"]]:
            continue
        try:
            parts[part] = check_part(opened, part, name)
        except InputError as error:
            yield str(error)
    for line in disagreements(parts):
        yield f"{folder} has parts of different models: {line}. Download the model again"


def empty_network(folder: Path) -> nn.Module:
    """The transformer of a folder by its configuration, without memory for its weights, which need not be there."""
    return empty_module_of(folder, "transformer")


def empty_module_of(folder: Path, part: str, dtype: torch.dtype | None = None) -> nn.Module:
    """A network, text encoder or VAE of a folder by its configuration, on the meta device, frozen. dtype: of its
    weights; None: that of its class."""
    import diffusers
    import transformers

    name = PARTS[family_of(folder)[0].module][part]
    cls = getattr(diffusers, name, None) or getattr(transformers, name)
    return frozen(empty_part(cls, ModelFolder(folder), part, here=False), dtype)


def absent(index: Mapping[str, Any], part: str) -> bool:
    """Whether a pipeline does without this part, by its index."""
    named: Any = index.get(part) or [None]
    return named[0] is None


def default_targets(pipeline: str) -> tuple[str, ...]:
    """The default LoRA targets of the family that opens a diffusers pipeline of this class."""
    for family in FAMILIES.values():
        if pipeline in family.pipelines:
            return family.targets
    raise InputError(f"no family opens a {pipeline}: there are {', '.join(FAMILIES)}")
