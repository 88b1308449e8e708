"""Inputs of nodes that take lists: ComfyUI gives such a node every input as a list, once, instead of running it for
each item, which would overwrite what it wrote for the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..danceopd_core.data.bucket_files import lines_of
from ..danceopd_core.errors import InputError
from ._comfy import as_arrays


def single(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The one value of each input; InputError for one that has several."""
    return {name: one(name, values) for name, values in inputs.items()}


def one(name: str, values: Any) -> Any:
    """The one value of an input; InputError if there are several. What is no list is the value itself."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        return values
    if len(values) != 1:
        raise InputError(
            f"{name}: it is given {len(values)} values, and takes one: pick one, or give lists of prompts and pictures "
            "to a bucket"
        )
    return values[0]


def prompts_of(texts: Sequence[str] | None, name: str) -> tuple[str, ...]:
    """The prompts of one text, one per line; of a list of texts each is a prompt, its lines joined."""
    if texts is None:
        return ()
    if len(texts) == 1:
        return lines_of(texts[0] or "")
    joined = tuple(" ".join(text.split()) for text in texts)
    empty = [number for number, text in enumerate(joined, 1) if not text]
    if empty:
        raise InputError(
            f"{name}: {len(empty)} of {len(joined)} texts are empty (number {', '.join(map(str, empty[:5]))}): a "
            "picture without a caption has none; write it, or take the picture out"
        )
    return joined


def pictures_of(batches: Sequence[Tensor | None] | None, name: str) -> tuple[np.ndarray, ...]:
    """The pictures of a list of IMAGE batches, of any sizes."""
    return tuple(picture for batch in batches or () for picture in as_arrays(batch, name))
