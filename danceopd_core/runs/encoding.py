"""Encodes prompts and pictures to conditioning and latents, for single items and for all buckets of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..algorithm.fields import Conditioning, Sample
from ..data.csv_rows import Item
from ..data.images import Picture, open_picture
from ..data.prompt_assignment import EncodedBucket, PromptAssignment, assign_prompts
from ..errors import InputError
from ..models.backbone import Backbone
from ..recipe.schema import Bucket, Teacher
from .other_models import OtherModel, of_teacher, own_models
from .planning import RunPlan, negatives_of


class EncodedBuckets(NamedTuple):
    """buckets: one for each route, in the recipe's order. assignment: what the learned router did, if there is one."""

    buckets: list[EncodedBucket]
    assignment: PromptAssignment | None


def as_tensor(picture: Picture, width: int, height: int) -> Tensor:
    """A picture, or its path, as (H, W, 3) in [0, 1]."""
    return torch.from_numpy(open_picture(picture, width, height).copy()).float() / 255


def encode_items(
    backbone: Backbone, items: Sequence[Item], width: int, height: int, negatives: Sequence[str] = ()
) -> Conditioning:
    """Prompts with their source pictures as conditioning, on the CPU: batches move to the device when they are used.

    Conditioning that an item brings is taken as it is; for one without a null, that is the encoded negative prompt with
    the item's own source pictures.
    """
    texts = [item for item in items if item.conditioning is None]
    sources = [None if item.source is None else [as_tensor(item.source, width, height)] for item in texts]
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


def encode_buckets(
    plan: RunPlan, backbone: Backbone, log: Callable[[str], None], others: Mapping[str, OtherModel] | None = None
) -> EncodedBuckets:
    """All buckets of a run, with the prompts that the learned router assigns to each.

    others: the models that teachers have for themselves, by name.
    """

    def encode(bucket: Bucket, teachers: Sequence[Teacher]) -> EncodedBucket:
        items, width, height = plan.items(bucket), plan.recipe.width, plan.recipe.height
        samples = encode_for(teachers, backbone, others or {}, items, width, height)
        clean = _latents(backbone, items, width, height) if plan.method.needs_clean else None
        return EncodedBucket(items, samples, clean)

    teachers = [plan.teachers(route) for route in plan.recipe.routes]
    buckets, negatives = [], [negatives_of(own) for own in teachers]
    for route, own in zip(plan.recipe.routes, teachers, strict=True):
        log(f"encoding the bucket of '{route.name}'")
        buckets.append(encode(route.bucket, own))
    size = plan.recipe.width, plan.recipe.height
    for route, bucket in zip(plan.recipe.routes, buckets, strict=True):
        check_samples(backbone, others or {}, bucket.samples, size, route.bucket.encoded and f"route {route.name!r}")
    learned = plan.recipe.learned_router
    if learned is None:
        return EncodedBuckets(buckets, None)
    log("encoding the prompts without a route")
    unassigned = encode(learned.bucket, [teacher for own in teachers for teacher in own])
    check_samples(backbone, others or {}, unassigned.samples, size, learned.bucket.encoded and "learned router")
    names = [route.name for route in plan.recipe.routes]
    buckets, assignment = assign_prompts(
        names, buckets, negatives, unassigned, backbone.prompt_embeddings, learned.holdout, plan.recipe.seed
    )
    log(assignment.text())
    return EncodedBuckets(buckets, assignment)


def check_samples(
    backbone: Backbone,
    others: Mapping[str, OtherModel],
    samples: Conditioning,
    size: tuple[int, int],
    place: str | None = None,
) -> None:
    """InputError if a network cannot be asked under these samples: the run's, or that of a teacher's own model.

    size: width and height in pixels. place: where conditioning was given.
    """
    try:
        backbone.check(samples, *size)
    except InputError as error:
        if not place:
            raise
        told = "; ".join(fault.message for fault in error.faults)
        raise InputError(f"{place}: conditioning of Bucket from Conditioning: {told}") from None
    for model, other in others.items():
        views = [sample.views[model] for sample in samples.samples if model in sample.views]
        with of_teacher(other.teacher):
            other.backbone.check(Conditioning(tuple(views)), *size)


def _latents(backbone: Backbone, items: Sequence[Item], width: int, height: int) -> Tensor:
    """(n, ...) of the target pictures, which every item has where the method needs them."""
    targets = [item.target for item in items if item.target is not None]
    return torch.cat([backbone.encode_image(as_tensor(target, width, height)[None]).cpu() for target in targets])
