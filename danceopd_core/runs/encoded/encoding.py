"""Encodes what a run will draw of its buckets, and checks that the networks can be asked under it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ...algorithm.fields import Conditioning
from ...algorithm.trainer import ProcessGroup
from ...data.aspects import Size, item_sizes, sized, sizes_of
from ...data.cache_folder import CacheFolder
from ...data.prompt_assignment import PromptAssignment, assign_prompts
from ...errors import InputError
from ...models.backbone import Backbone
from ..plans.drawing import drawn_rows
from ..plans.other_models import OtherModel, of_teacher
from ..plans.planning import RunPlan, negatives_of
from .bucket_encoders import Encoders, RouteBucket, whole
from .encoding_items import encode_for, encode_items

__all__ = ["EncodedBuckets", "check_samples", "encode_buckets", "encode_for", "encode_items"]


class EncodedBuckets(NamedTuple):
    """buckets: one for each route, in the recipe's order. assignment: what the learned router did, if there is one.
    sizes: of their samples, width and height in pixels; the first is the recipe's."""

    buckets: list[RouteBucket]
    assignment: PromptAssignment | None
    sizes: tuple[Size, ...]


def encode_buckets(
    plan: RunPlan,
    backbone: Backbone,
    log: Callable[[str], None],
    others: Mapping[str, OtherModel] | None = None,
    processes: ProcessGroup | None = None,
    kept: CacheFolder | None = None,
) -> EncodedBuckets:
    """What a run will draw of its buckets, encoded; with the prompts that the learned router assigns to each.

    others: the models that teachers have for themselves, by name. processes: that share the work. kept: where encoded
    samples last between runs; None: nowhere.
    """
    recipe, others = plan.recipe, others or {}
    encoders = Encoders(plan, backbone, others, processes or ProcessGroup(), kept, log)
    items = [plan.items(route.bucket) for route in recipe.routes]
    teachers = [plan.teachers(route) for route in recipe.routes]
    learned, size = recipe.learned_router, (recipe.width, recipe.height)
    sizes: tuple[Size, ...] = (size,)
    numbers: list[Sequence[int] | None] = [None] * len(items)
    if recipe.aspects == "sources":
        sizes = sizes_of(*size, backbone.size_multiple)
        for number, own in enumerate(items):
            numbers[number] = found = item_sizes(own, sizes)
            items[number] = sized(own, found, sizes)
    counts = [len(own) for own in items]
    if learned:
        rows = [list(range(count)) for count in counts]
    else:
        rows = drawn_rows(recipe, counts, encoders.processes.size, numbers)
    buckets = []
    for number, route in enumerate(recipe.routes):
        log(what := f"encoding the bucket of '{route.name}'")
        bucket = encoders.bucket(what, items[number], teachers[number], rows[number], numbers[number])
        own_size = sizes[bucket.sizes[rows[number][0]]] if bucket.sizes else size
        check_samples(backbone, others, bucket.examples, own_size, route.bucket.encoded and f"route {route.name!r}")
        buckets.append(bucket)
    if learned is None:
        return EncodedBuckets(buckets, None, sizes)
    log(what := "encoding the prompts without a route")
    own = plan.items(learned.bucket)
    unassigned = encoders.bucket(what, own, [teacher for part in teachers for teacher in part], range(len(own)))
    check_samples(backbone, others, unassigned.examples, size, learned.bucket.encoded and "learned router")
    extended, assignment = assign_prompts(
        [route.name for route in recipe.routes],
        [whole(*pair) for pair in zip(items, buckets, strict=True)],
        [negatives_of(part) for part in teachers],
        whole(own, unassigned),
        backbone.prompt_embeddings,
        learned.holdout,
        recipe.seed,
    )
    log(assignment.text())
    return EncodedBuckets([RouteBucket(one.samples, one.clean, one.samples) for one in extended], assignment, sizes)


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
