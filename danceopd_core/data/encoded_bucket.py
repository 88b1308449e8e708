"""Buckets of conditioning that encode nodes of ComfyUI made, as one safetensors file.

Its tensors are called KIND/ROW/PART/NAME: KIND is positive, negative or target (a uint8 picture), PART the place in a
list of tensors, such as reference latents, or "-" for a value that is one tensor, and NAME is ComfyUI's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..algorithm.fields import Sample, Value
from ..errors import InputError
from ..files import write_bytes
from ..outside import parse_json
from ..weights.safetensors_io import finite, open_safetensors
from .csv_rows import Item

FORMAT = "danceopd conditioning 1"
KEY = re.compile(r"(positive|negative|target)/(\d{1,7})/(-|\d{1,4})/(.+)", re.DOTALL)
TEXT = "text"
"""The value that is an encoded text, (tokens, width)."""


def write_encoded(
    root: Path, samples: Sequence[Sample], nulls: Sequence[Sample], targets: Sequence[np.ndarray], label: str
) -> Path:
    """Writes a bucket to a file in `root` named by its content hash, and returns its path.

    nulls: what guided teachers compare with, none, one for all or one each. targets: pictures, likewise. label: the
    captions are the label and a number. InputError, naming an input of the node, for what cannot be a bucket.
    """
    from safetensors.torch import save

    for name, given in (("negative", nulls), ("target_images", targets)):
        if len(given) not in (0, 1, len(samples)):
            raise InputError(
                f"{name}: {len(given)} are given for {len(samples)} of conditioning: give one for all, or one each"
            )
    tensors: dict[str, Tensor] = {}
    for name, kind, given in (("conditioning", "positive", samples), ("negative", "negative", nulls)):
        for row, sample in enumerate(given):
            parts = {f"{kind}/{row}/{part}": tensor for part, tensor in _parts(sample)}
            if any(tensor.is_floating_point() and not finite(tensor) for tensor in parts.values()):
                raise InputError(f"{name}: number {row + 1} holds NaN or infinity: look at the node that makes it")
            tensors |= parts
    tensors |= {f"target/{row}/-/picture": torch.from_numpy(picture) for row, picture in enumerate(targets)}
    # One entry: the order of several differs from process to process.
    described = json.dumps({"format": FORMAT, "label": label})
    tensors = {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in tensors.items()}
    data = save(tensors, {"danceopd_bucket": described})
    path = root / f"{hashlib.sha256(data).hexdigest()[:16]}.safetensors"
    if not path.is_file() or path.stat().st_size != len(data):
        write_bytes(path, data)
    return path


def read_encoded(path: str | Path) -> tuple[Item, ...]:
    """The items of a bucket file; InputError for a file that `write_encoded` cannot have written."""
    path = Path(path)
    # Tensors of inference mode could not be trained on.
    with open_safetensors(path) as handle, torch.inference_mode(False):
        label = _label((handle.metadata() or {}).get("danceopd_bucket", ""))
        tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 (a handle, not a dict)
    fault = "it has no header of one" if label is None else next(_faults(tensors), "")
    if fault or label is None:
        raise InputError(
            f"{path} is not a bucket of conditioning: {fault}. Queue its workflow again, and Bucket from Conditioning "
            "writes it anew"
        )
    rows = _rows(tensors)
    samples, nulls, targets = (
        [Sample(rows[kind][row]) for row in sorted(rows[kind])] for kind in ("positive", "negative", "target")
    )
    return tuple(
        Item(
            f"{label} {row + 1}",
            target=targets[row % len(targets)].values["picture"].numpy() if targets else None,  # type: ignore[union-attr]
            conditioning=sample,
            null=nulls[row % len(nulls)] if nulls else None,
        )
        for row, sample in enumerate(samples)
    )


def _parts(sample: Sample) -> Iterator[tuple[str, Tensor]]:
    for name, value in sample.values.items():
        if isinstance(value, Tensor):
            yield f"-/{name}", value
        else:
            yield from ((f"{number}/{name}", part) for number, part in enumerate(value))


def _label(text: str) -> str | None:
    """The label in a file's header; None if the header is not one of these files."""
    try:
        described = parse_json(text, "the label")
    except InputError:
        return None
    known = isinstance(described, dict) and described.get("format") == FORMAT
    return described["label"] if known and isinstance(described.get("label"), str) else None


def _faults(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Why these tensors are not a bucket."""
    if unknown := [key for key in tensors if not KEY.fullmatch(key)]:
        yield f"it holds {unknown[0]!r}"
        return
    rows = _rows(tensors)
    count = len(rows["positive"])
    if not count:
        yield "it holds no conditioning"
    for kind, found in rows.items():
        if sorted(found) != list(range(len(found))) or len(found) not in {0, 1, count}:
            yield f"its rows of {kind} are not numbered without a gap, or not one for all or one each"
        for row, values in found.items():
            if any(value is None for value in values.values()):
                yield f"a list of {kind} {row + 1} has a gap"
            text = values.get(TEXT)
            if isinstance(text, Tensor) and text.ndim != 2:
                yield f"the text of {kind} {row + 1} has the shape {tuple(text.shape)} and not (tokens, width)"
    for key, tensor in tensors.items():
        if key.startswith("target/") and (tensor.dtype != torch.uint8 or tensor.ndim != 3 or tensor.shape[2] != 3):
            yield f"{key} is no picture"
        if tensor.is_floating_point() and not finite(tensor):
            yield f"{key} holds NaN or infinity"


def _rows(tensors: Mapping[str, Tensor]) -> dict[str, dict[int, dict[str, Any]]]:
    """Kind -> row -> name -> value, None for a list with a gap."""
    found: dict[tuple[str, int, str], dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if match:
            kind, row, part, name = match.groups()
            found.setdefault((kind, int(row), name), {})[part] = tensor
    rows: dict[str, dict[int, dict[str, Any]]] = {"positive": {}, "negative": {}, "target": {}}
    for (kind, row, name), parts in found.items():
        rows[kind].setdefault(row, {})[name] = _value(parts)
    return rows


def _value(parts: Mapping[str, Tensor]) -> Value | None:
    if set(parts) == {"-"}:
        return parts["-"]
    numbers = [str(number) for number in range(len(parts))]
    return tuple(parts[number] for number in numbers) if set(parts) == set(numbers) else None
