"""Downloads models by their Hugging Face id into the hub's own cache: only what the pipeline needs.

Ids come only from a user's recipe or command; ComfyUI's nodes take folders, so a workflow never starts a download.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from ..errors import InputError
from ..outside import read_json

ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*)?", re.ASCII)
"""owner/name, or owner/name@revision: a branch, a tag, or a commit, which alone stays what it is."""
SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja")
EVERY_PART = (
    "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "image_encoder", "feature_extractor",
)  # fmt: skip
"""The parts of pipelines that have weights."""
VARIANTS = ("*.fp16*", "*.bf16*", "*.non_ema*")


def is_hub_id(name: str, folder: str | Path = "") -> bool:
    """Whether a name is owner/name or owner/name@revision and not a path.

    It is a path where it or a folder "owner" exists, here or in `folder`.
    """
    roots = (Path(), Path(folder))
    return bool(ID.fullmatch(name)) and not any(
        os.path.lexists(root / name) or os.path.isdir((root / name).parent) for root in roots
    )


def split_id(name: str) -> tuple[str, str | None]:
    """owner/name, and its revision; None: the newest of the default branch."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def fetched(name: str, without: Collection[str] = ()) -> Path:
    """The folder of a model's pipeline in the hub's cache, downloaded if it is not there yet.

    name: owner/name, or owner/name@revision. without: parts whose weights come from elsewhere; only their
    configuration is downloaded. Weights are downloaded as safetensors only. InputError if the download fails.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    repository, revision = split_id(name)
    try:
        index = read_json(hf_hub_download(repository, "model_index.json", revision=revision), "the index")
        parts = [part for part, cls in index.items() if isinstance(cls, list) and isinstance(cls[0], str)]
        parts = [part for part in parts if re.fullmatch(r"\w+", part, re.ASCII)]
        patterns = ["model_index.json"]
        for part in parts:
            files = SETTINGS if part in without else (*SETTINGS, "*.safetensors")
            patterns += [f"{part}/{file}" for file in files]
        return Path(
            snapshot_download(repository, allow_patterns=patterns, ignore_patterns=list(VARIANTS), revision=revision)
        )
    except (OSError, ValueError, TypeError, AttributeError, LookupError, EntryNotFoundError) as error:
        raise InputError(
            f"model: there is no folder {name} here, and a model of that name cannot be downloaded from Hugging Face "
            f"({' '.join(str(error).split())[:300]}). Give the path of a diffusers folder, or go online and give the "
            "id of a model in diffusers' layout; for one with restricted access, log in with `hf auth login`"
        ) from error


def commit_of(folder: Path) -> str:
    """The commit of a downloaded folder, which the hub's cache is arranged by; "" for any other folder."""
    return folder.name if folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name) else ""


def configuration(name: str) -> Path:
    """As `fetched`, but without any weights: only configurations are downloaded."""
    return fetched(name, EVERY_PART)
