"""Released base models by the names of their folders and files, with their licences."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ...models.hub import is_hub_id, split_id
from ...recipe.file_names import LIVE, is_live


class KnownModel(NamedTuple):
    """repository: on Hugging Face. licence: as model cards there have it; name, link: where it is "other"."""

    repository: str
    licence: str
    name: str = ""
    link: str = ""


APACHE = "apache-2.0"
STABILITY = ("other", "stabilityai-ai-community", "https://stability.ai/license")
FLUX_DEV = ("other", "flux-1-dev-non-commercial-license",
            "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md")  # fmt: skip
KREA_2 = ("other", "krea-2-community-license", "https://huggingface.co/krea/Krea-2-Turbo/blob/main/LICENSE.pdf")
QWEN_RESEARCH = ("other", "qwen-research", "https://huggingface.co/Qwen/Qwen-Image-2.1/blob/main/LICENSE")
KNOWN: dict[str, KnownModel | None] = {
    "z-image-turbo": KnownModel("Tongyi-MAI/Z-Image-Turbo", APACHE),
    "z-image": KnownModel("Tongyi-MAI/Z-Image", APACHE),
    "qwen-image-edit-2511": KnownModel("Qwen/Qwen-Image-Edit-2511", APACHE),
    "qwen-image-edit-2509": KnownModel("Qwen/Qwen-Image-Edit-2509", APACHE),
    "qwen-image-edit": KnownModel("Qwen/Qwen-Image-Edit", APACHE),
    "qwen-image-2512": KnownModel("Qwen/Qwen-Image-2512", APACHE),
    "qwen-image": KnownModel("Qwen/Qwen-Image", APACHE),
    "qwen-image-2-1": KnownModel("Qwen/Qwen-Image-2.1", *QWEN_RESEARCH),
    "qwen-image-2-1-turbo": None,
    "qwen-image-layered": None,
    "krea-2-raw": KnownModel("krea/Krea-2-Raw", *KREA_2),
    "krea2-raw": KnownModel("krea/Krea-2-Raw", *KREA_2),
    "krea-2-turbo": KnownModel("krea/Krea-2-Turbo", *KREA_2),
    "krea2-turbo": KnownModel("krea/Krea-2-Turbo", *KREA_2),
    "stable-diffusion-3-5-medium": KnownModel("stabilityai/stable-diffusion-3.5-medium", *STABILITY),
    "stable-diffusion-3-5-large-turbo": KnownModel("stabilityai/stable-diffusion-3.5-large-turbo", *STABILITY),
    "stable-diffusion-3-5-large": KnownModel("stabilityai/stable-diffusion-3.5-large", *STABILITY),
    "sd3-5-medium": KnownModel("stabilityai/stable-diffusion-3.5-medium", *STABILITY),
    "sd3-5-large-turbo": KnownModel("stabilityai/stable-diffusion-3.5-large-turbo", *STABILITY),
    "sd3-5-large": KnownModel("stabilityai/stable-diffusion-3.5-large", *STABILITY),
    "flux-1-kontext-dev": KnownModel("black-forest-labs/FLUX.1-Kontext-dev", *FLUX_DEV),
    "flux1-kontext-dev": KnownModel("black-forest-labs/FLUX.1-Kontext-dev", *FLUX_DEV),
    "flux-1-schnell": KnownModel("black-forest-labs/FLUX.1-schnell", APACHE),
    "flux1-schnell": KnownModel("black-forest-labs/FLUX.1-schnell", APACHE),
    "flux-1-dev": KnownModel("black-forest-labs/FLUX.1-dev", *FLUX_DEV),
    "flux1-dev": KnownModel("black-forest-labs/FLUX.1-dev", *FLUX_DEV),
    "flux-2-klein-base-4b": KnownModel("black-forest-labs/FLUX.2-klein-base-4B", APACHE),
    "flux2-klein-base-4b": KnownModel("black-forest-labs/FLUX.2-klein-base-4B", APACHE),
    "flux2-klein-4b": KnownModel("black-forest-labs/FLUX.2-klein-4B", APACHE),
    "flux-2-klein-4b": KnownModel("black-forest-labs/FLUX.2-klein-4B", APACHE),
}
"""Name in lower case with a - for whatever is no letter or digit -> the model. Those whose licence is not certain here
are left out, or None if their name would be taken for another's: the card then asks for it."""


def known_model(names: Iterable[str]) -> KnownModel | None:
    """The model that the first of these names tells: folders, files, ids. The longest known name in one decides.

    What stands around it may only be what files add, such as `z_image_turbo_bf16.safetensors`.
    """
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", _last(name).lower()).strip("-")
        found = [known for known in KNOWN if re.search(rf"(^|-){re.escape(known)}(-|$)", plain)]
        if found:
            return KNOWN[max(found, key=len)]
    return None


def shown_name(model: str) -> str:
    """The name of a recipe's model without the folders that it lies in, or the digest of a live one."""
    if is_live(model):
        return model.removeprefix(LIVE).partition(":")[0]
    return split_id(model)[0] if is_hub_id(model) else Path(model).name or model


def _last(name: str) -> str:
    return name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
