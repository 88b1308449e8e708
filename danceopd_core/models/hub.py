"""Models by their Hugging Face id, owner/name: fetched into the hub's own cache, only the parts that a pipeline needs.

Only a person's recipe or command brings an id here; ComfyUI's nodes name folders, so a workflow makes nobody download.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from pathlib import Path

from ..errors import InputError

ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja")
VARIANTS = ("*.fp16*", "*.bf16*", "*.non_ema*")


def is_hub_id(name: str, folder: str | Path = "") -> bool:
    """Whether a name is owner/name and no path: neither it nor a folder "owner" is here or in `folder`."""
    near = (Path(), Path(folder))
    return bool(ID.fullmatch(name)) and not any(
        os.path.lexists(place / name) or (place / name).parent.is_dir() for place in near
    )


def fetched(name: str, without: Collection[str] = ()) -> Path:
    """The folder of a model's pipeline in the hub's cache, fetched where it is not there yet.

    without: parts whose weights come from elsewhere; of them only the configuration is fetched. Weights are fetched
    as safetensors only. InputError if it cannot be.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        index = json.loads(Path(hf_hub_download(name, "model_index.json")).read_text(encoding="utf-8"))
        parts = [part for part, made in index.items() if isinstance(made, list) and made[0] is not None]
        wanted = ["model_index.json"]
        for part in parts:
            kinds = SETTINGS if part in without else (*SETTINGS, "*.safetensors")
            wanted += [f"{part}/{kind}" for kind in kinds]
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=list(VARIANTS)))
    except (OSError, ValueError, TypeError, AttributeError, LookupError, EntryNotFoundError) as error:
        raise InputError(
            f"model: there is no folder {name} here, and a model of that name cannot be fetched from Hugging Face "
            f"({' '.join(str(error).split())[:300]}). Give the path of a diffusers folder, or go online and give the "
            "id of a model in diffusers' layout; for one with restricted access, log in with `hf auth login`"
        ) from error
