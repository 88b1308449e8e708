"""Encodes items, prompts with their pictures, to conditioning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...algorithm.fields import Conditioning, Sample
from ...data.csv_rows import Item
from ...data.images import Picture, open_picture
from ...models.backbone import Backbone
from ...recipe.schema import Teacher
from ..plans.other_models import OtherModel, own_models
from ..plans.planning import negatives_of


def as_tensor(picture: Picture, width: int, height: int) -> Tensor:
    """A picture, or its path, as (H, W, 3) in [0, 1]."""
    return torch.from_numpy(open_picture(picture, width, height).copy()).float() / 255


def encode_items(
    backbone: Backbone, items: Sequence[Item], width: int, height: int, negatives: Sequence[str] = ()
) -> Conditioning:
    """Prompts with their source pictures as conditioning, on the CPU: batches move to the device when they are used.

    width, height: of the pictures of items that have no size of their own.

    Conditioning that an item brings is taken as it is; for one without a null, that is the encoded negative prompt with
    the item's own source pictures.
    """
    texts = [item for item in items if item.conditioning is None]
    run = width, height
    sources = [None if item.source is None else [as_tensor(item.source, *(item.size or run))] for item in texts]
    encoded = iter(backbone.encode([item.prompt for item in texts], sources, negatives).to("cpu").samples)
    nulls: dict[str, Sample] = {}
    if negatives and any(item.conditioning is not None and item.null is None for item in items):
        nulls = dict(zip(negatives, backbone.encode(list(negatives)).to("cpu").samples, strict=True))

    def given(item: Item, own: Sample) -> Sample:
        return Sample(own.values, {name: item.null or _null(nulls[name], own) for name in negatives})

    return Conditioning(tuple(given(item, item.conditioning) if item.conditioning else next(encoded) for item in items))


def _null(encoded: Sample, own: Sample) -> Sample:
    """An encoded negative prompt beside the lists of tensors of a sample, which are its source pictures."""
    pictures = {name: value for name, value in own.values.items() if isinstance(value, tuple)}
    return Sample({**pictures, **encoded.values})


def encode_for(
    teachers: Sequence[Teacher],
    backbone: Backbone,
    others: Mapping[str, OtherModel],
    items: Sequence[Item],
    width: int,
    height: int,
) -> Conditioning:
    """Conditioning under which the student and all these teachers can be asked, on the CPU.

    others: the models that teachers have for themselves, by name.
    """
    samples = encode_items(backbone, items, width, height, negatives_of(teachers))
    for model in own_models(teachers):
        view = encode_items(others[model].backbone, items, width, height, negatives_of(teachers, model))
        samples = samples.with_view(model, view)
    return samples
