"""CONDITIONING as samples that can be trained on, and samples as what `apply_model` takes, by ComfyUI's own path.

A Sample holds tensors only, so that it can be moved and stored. Settings of a CONDITIONING that are no tensors, such
as the guidance of FLUX, are kept beside them as JSON text in bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from inspect import isfunction
from typing import Any

import torch
from comfy.conds import CONDCrossAttn
from comfy.model_base import BaseModel
from comfy.sampler_helpers import convert_cond
from comfy.samplers import cond_cat, cond_equal_size, encode_model_conds
from torch import Tensor

from ...danceopd_core.algorithm.fields import Sample, Value
from ...danceopd_core.data.encoded_bucket import TEXT
from ...danceopd_core.errors import InputError
from ...danceopd_core.outside import parse_json

SETTINGS = "settings"
REFERENCES = "reference_latents"
READ_AS = {"ref_latents", "reference_latent"}
"""What networks call source pictures; one that names none of them ignores them."""
ALONE = {"ref_contexts"}
"""What keeps samples from sharing a call: with texts between the pictures, Z-Image numbers one sample's positions."""
REFUSED = {
    "hooks": "hooks", "control": "a ControlNet", "gligen": "GLIGEN boxes", "area": "an area", "mask": "a mask",
    "start_percent": "a time range", "end_percent": "a time range", "default": "a default for the unmasked area",
    "clip_start_percent": "a schedule of the text encoder", "concat_mask": "an inpainting mask",
}  # fmt: skip
"""What a CONDITIONING may carry in ComfyUI that a teacher cannot be asked under."""

Conds = dict[str, Any]
"""What `extra_conds` builds for one sample: ComfyUI's COND objects by the name that `apply_model` has for them."""


def sample_of(conditioning: Sequence[Any]) -> Sample:
    """The one entry of a CONDITIONING, its tensors cloned; InputError for what no sample can hold."""
    if len(conditioning) != 1:
        raise InputError(
            f"a CONDITIONING holds {len(conditioning)} entries: give one for each sample, "
            "without Conditioning (Combine)"
        )
    text, extras = conditioning[0]
    if text is not None and len(text) != 1:
        raise InputError(f"a CONDITIONING holds a batch of {len(text)} texts: give one for each sample")
    values: dict[str, Value] = {} if text is None else {TEXT: _clone(text[0])}
    settings: dict[str, Any] = {}
    for name, value in extras.items():
        if name in REFUSED:
            raise InputError(f"a CONDITIONING carries {REFUSED[name]}, which cannot be distilled: give it without")
        if isinstance(value, Tensor):
            values[name] = _clone(value)
        elif isinstance(value, list | tuple) and value and all(isinstance(part, Tensor) for part in value):
            values[name] = tuple(_clone(part) for part in value)
        else:
            settings[name] = value
    if settings:
        values[SETTINGS] = settings_tensor(settings)
    return Sample(values)


def conditioning_of(sample: Sample) -> list[Any]:
    """The inverse of `sample_of`."""
    extras: dict[str, Any] = {}
    for name, value in sample.values.items():
        if name == SETTINGS and isinstance(value, Tensor):
            extras |= _settings(bytes(value.cpu().tolist()))
        elif name != TEXT:
            extras[name] = list(value) if isinstance(value, tuple) else value
    text = sample.values.get(TEXT)
    return [[text[None] if isinstance(text, Tensor) else None, extras]]


def _settings(data: bytes) -> dict[str, Any]:
    try:
        found = parse_json(data.decode(), "the settings of a bucket's conditioning")
    except UnicodeDecodeError:
        found = None
    if not isinstance(found, dict):
        raise InputError("a bucket's conditioning has settings that are no mapping: queue its workflow again")
    return found


def model_conds(model: BaseModel, sample: Sample, x: Tensor) -> Conds:
    """What the MODEL's `extra_conds` makes of a sample for one state x (1, ...)."""
    if REFERENCES in sample.values and not reads_references(type(model.diffusion_model)):
        raise InputError(_no_sources(model))
    converted = convert_cond(conditioning_of(sample.to(x.device)))
    latent_shapes = [tuple(x.shape)]
    (encoded,) = encode_model_conds(
        model.extra_conds, converted, x, x.device, "positive",
        latent_image=torch.zeros_like(x), denoise_mask=None, seed=0, latent_shapes=latent_shapes,
    )  # fmt: skip
    conds = {name: cond.process_cond(batch_size=1, area=None) for name, cond in encoded["model_conds"].items()}
    if REFERENCES in sample.values and not _takes_references(model, conds):
        raise InputError(_no_sources(model))
    return conds


def _no_sources(model: BaseModel) -> str:
    return (
        f"the MODEL ({type(model.model_config).__name__}) takes no source pictures: load one that edits, or remove "
        "the source pictures from the prompts, or choose another way of edits in Flow Model from ComfyUI"
    )


def _takes_references(model: BaseModel, conds: Conds) -> bool:
    network = model.diffusion_model
    if "c_concat" in conds and "ref_latents" in conds:  # inpainting models of FLUX: a source has not their channels
        return False
    if vars(network).get("ref_conv", "") is None:  # Wan without the layer for them
        return False
    # Krea 2 has no method of its own, and without one it ignores them.
    method = vars(network).get("default_ref_method", "") is not None or "ref_latents_method" in conds
    return method and bool(READ_AS & conds.keys())


@cache
def reads_references(network: type) -> bool:
    """Whether the code of a network's class names source pictures; others take any argument and ignore it."""
    codes = [part.__code__ for kind in network.__mro__ for part in vars(kind).values() if isfunction(part)]
    return any(READ_AS & {*code.co_varnames, *code.co_consts} for code in codes)


def grouped(conds: Sequence[Conds]) -> list[list[int]]:
    """Rows that can share a call, as ComfyUI decides it: the same shapes, and the same constants."""
    groups: list[list[int]] = []
    for row, own in enumerate(conds):
        for group in groups:
            if not (ALONE & own.keys()) and cond_equal_size(own, conds[group[0]]) and _same_text(own, conds[group[0]]):
                group.append(row)
                break
        else:
            groups.append([row])
    return groups


def _same_text(own: Conds, other: Conds) -> bool:
    """Whether texts are of one length: ComfyUI repeats the shorter one, which changes what PixelDiT answers."""
    repeated = [name for name, cond in own.items() if isinstance(cond, CONDCrossAttn)]
    return all(own[name].cond.shape == other[name].cond.shape for name in repeated)


def batched(conds: Sequence[Conds]) -> dict[str, Any]:
    """The arguments of `apply_model` for rows of one group."""
    return cond_cat(list(conds))


def _clone(tensor: Tensor) -> Tensor:
    """A copy without the inference mode in which it was made."""
    with torch.inference_mode(False):
        return tensor.clone().detach()


def settings_tensor(settings: Mapping[str, Any]) -> Tensor:
    """Settings as the bytes of their JSON text; InputError for what has none."""
    try:
        text = json.dumps(settings, sort_keys=True)
    except TypeError:
        odd = [name for name, value in settings.items() if not _plain(value)]
        raise InputError(
            f"a CONDITIONING carries {', '.join(odd)}, which cannot be kept for training: encode without it"
        ) from None
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
