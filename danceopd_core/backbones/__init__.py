"""Model families behind one protocol: each translates its clock, sign and packing to the core's convention.

x_sigma = (1 - sigma) * clean + sigma * noise, v = noise - clean, sigma falls from 1 to 0, all float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..fields import Conditioning
from ..quantise import check_quantise
from .parts import ModelFolder

COMPONENTS = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Parts of a pipeline whose weights may come from a file of their own."""
Sources = Sequence[Sequence[Tensor] | None]


class Backbone(Protocol):
    """A flow model with its text encoder and VAE; nothing above knows how it counts time or packs inputs."""

    @property
    def family(self) -> str: ...

    @property
    def network(self) -> nn.Module:
        """The transformer: where adapters go."""
        ...

    @property
    def default_targets(self) -> tuple[str, ...]:
        """Endings of the module names that a fresh LoRA adapts."""
        ...

    @property
    def size_multiple(self) -> int:
        """Widths and heights, of pictures made and of sources, are multiples of this many pixels."""
        ...

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        """dx/dsigma at x (B, ...) and sigma (B,), float32; the network itself runs in its own dtype."""
        ...

    def encode(
        self, prompts: Sequence[str], sources: Sources | None = None, negatives: Sequence[str] = ()
    ) -> Conditioning:
        """One sample a prompt, each with a null for every negative prompt.

        `sources[i]` holds the pictures (H, W, 3) in [0, 1] that prompt i edits; None or empty: text only.
        Samples do not depend on their neighbours in the batch, so they may be cached one by one.
        """
        ...

    def prompt_embeddings(self, cond: Conditioning) -> Tensor:
        """(n, D) float32: one vector for the prompt of each encoded sample, the mean of its text's token embeddings.

        Pictures count only where the text encoder itself sees them.
        """
        ...

    def encode_image(self, images: Tensor) -> Tensor:
        """Pictures (B, H, W, 3) in [0, 1] as clean float32 latents of the model's space."""
        ...

    def decode(self, x: Tensor) -> Tensor:
        """Clean latents as pictures (B, H, W, 3) in [0, 1], float32."""
        ...

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        """Shape of one sample's latents, without the batch; InputError if `size_multiple` does not fit."""
        ...

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        """(steps + 1,) float32 from 1 to 0, as the model's scheduler spaces them for this picture size."""
        ...

    def with_network(self, network: nn.Module) -> Backbone:
        """The same backbone around another transformer of its architecture (a full-checkpoint teacher)."""
        ...

    def to(self, device: torch.device | str) -> Backbone:
        """Moves the network and the encoders, in place; returns itself."""
        ...

    def offload_encoders(self, device: torch.device | str = "cpu") -> None:
        """Moves the text encoder and the VAE only; they work wherever they are."""
        ...


class Family(NamedTuple):
    """`opener`: "module:function" of this package, imported when chosen, called with (folder, index, dtype, device),
    a ModelFolder and what its model_index.json says.
    `pipelines`: the diffusers pipeline classes, as model_index.json names them, whose folders it opens, each with the
    number of source pictures that a prompt may have.
    """

    opener: str
    pipelines: Mapping[str, float]


FAMILIES = {
    "zimage": Family("zimage:open_zimage", {"ZImagePipeline": math.inf}),
    "sd3": Family("sd3:open_sd3", {"StableDiffusion3Pipeline": 0}),
    "flux": Family("flux:open_flux", {"FluxPipeline": 0, "FluxKontextPipeline": 1}),
    "qwen": Family(
        "qwen:open_qwen",
        {"QwenImagePipeline": 0, "QwenImageEditPipeline": 1, "QwenImageEditPlusPipeline": math.inf},
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
    module, function = family.opener.split(":")
    given = ModelFolder(folder, files, quantise)
    return getattr(import_module(f".{module}", __name__), function)(given, index, dtype, device)


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
