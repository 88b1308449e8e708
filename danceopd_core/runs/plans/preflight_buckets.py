"""Checks the prompts and images of a recipe's buckets before a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...algorithm.methods import METHODS
from ...data.buckets import bucket_rows, load_bucket
from ...data.csv_rows import CsvRow, CsvRows, Item, items_of, row_numbers
from ...data.images import picture_fault
from ...data.prompt_assignment import assignment_faults
from ...data.roots import Roots
from ...data.stream_items import StreamItems
from ...data.tables import edits_without_source
from ...errors import Fault, InputError
from ...recipe.file_names import is_live
from ...recipe.schema import Bucket, Recipe, Route
from .drawing import drawn_rows, launched
from .sources import ModelFacts

MAX_ROW_FAULTS = 10
"""CsvRows of a bucket with an unusable image that are listed one by one; the rest are counted."""

DECODED = 10_000
"""CsvRows of a bucket of which every image is decoded; of a larger one, the images that the run draws."""


def check_buckets(
    recipe: Recipe, models: Mapping[str | None, ModelFacts], faults: list[Fault], roots: Roots = None
) -> dict[Bucket, CsvRows]:
    """The rows of every bucket that can be read; what is wrong with them is added to `faults`.

    models: None for the run's, and those that teachers have for themselves by name. roots: where files have to lie.
    """
    method = METHODS[recipe.method]
    loaded: dict[Bucket, CsvRows] = {}
    images: dict[Path, str] = {}  # image file -> what is wrong with it, or ""
    readers = [_readers(recipe, route) for route in recipe.routes]
    places = [("", f"route {route.name!r}", own) for route, own in zip(recipe.routes, readers, strict=True)]
    places.append(("learned_router", "", [model for own in readers for model in own]))
    for (setting, route, _), bucket in zip(places, recipe.buckets(), strict=False):
        try:
            if bucket not in loaded:
                loaded[bucket] = _load(bucket, recipe.seed, roots)
        except InputError as error:
            faults.append(Fault(setting, f"{route}: {error}" if route else str(error)))
    looked_at = _looked_at(recipe, loaded)
    for number, ((setting, route, own_models), bucket) in enumerate(zip(places, recipe.buckets(), strict=False)):
        if bucket not in loaded:
            continue
        rows, place = loaded[bucket], ", ".join(filter(None, (route, _named(bucket))))
        found = (models[model] for model in dict.fromkeys(own_models))
        messages = [message for facts in found for message in _sources(rows, facts.pipeline, facts.sources)]
        messages += _conditioning(rows, recipe, number)
        messages += edits_without_source(rows)
        if route:  # prompts without a route may be of both kinds
            messages += _both_kinds(rows)
        if method.needs_clean:
            messages += _without_target(rows, recipe.method)
        faults += [Fault(setting, f"{place}: {message}" if place else message) for message in messages]
        faults += [
            Fault(setting, f"{place}{message}") for message in _images(looked_at[number], method.needs_clean, images)
        ]
    if recipe.learned_router is not None and len(loaded) == len(set(recipe.buckets())):
        *own, unassigned = (items_of(loaded[bucket]) for bucket in recipe.buckets())
        names = [route.name for route in recipe.routes]
        faults += [Fault("learned_router", message) for message in assignment_faults(names, own, unassigned)]
    return loaded


def _named(bucket: Bucket) -> str | None:
    return bucket.stream.source if bucket.stream is not None else bucket.csv or bucket.encoded


def _readers(recipe: Recipe, route: Route) -> list[str | None]:
    """The models that encode a route's prompts: the run's, and those that its teachers have for themselves."""
    names = [route.teacher] if isinstance(route.teacher, str) else list(route.teacher)
    return [None, *(recipe.teachers[name].model for name in names)]


def _load(bucket: Bucket, seed: int, roots: Roots) -> CsvRows:
    if bucket.csv is not None or bucket.prompts:
        return bucket_rows(bucket, seed, roots)
    items = load_bucket(bucket, seed, roots=roots)
    return tuple(CsvRow(i + 1, item) for i, item in enumerate(items.first if isinstance(items, StreamItems) else items))


def _sources(rows: CsvRows, pipeline: str, sources: float) -> Iterator[str]:
    edits = row_numbers(rows, "source", True)
    if edits and sources < 1:
        yield (
            f"{len(edits)} of {len(rows)} rows have a source image ({_numbers(edits)}), which a {pipeline} does not "
            "take: remove the rows, or use a model that edits"
        )


def _conditioning(rows: CsvRows, recipe: Recipe, number: int) -> Iterator[str]:
    """What keeps the conditioning of bucket `number` from being used; nothing for prompts."""
    given = [row.item for row in rows if row.item.conditioning is not None] if isinstance(rows, tuple) else []
    if not given:
        return
    if not is_live(recipe.model):
        yield "it holds conditioning of ComfyUI's encode nodes, which only its own models take: give prompts"
    names = {name for route in recipe.routes[number : number + 1] or recipe.routes for name in route.teachers}
    if any(recipe.teachers[name].model for name in names):
        yield "a teacher with a model of its own encodes the prompts itself, and conditioning has none: give prompts"
    guided = any(recipe.teachers[name].guidance != 1 for name in names)
    if guided and any(item.null is None and _holds_pictures(item) for item in given):
        yield (
            "its conditioning holds source pictures, and guidance needs a negative that holds them too: connect the "
            "input negative of Bucket from Conditioning"
        )


def _holds_pictures(item: Item) -> bool:
    """Whether the conditioning holds lists of tensors, as reference latents are."""
    return item.conditioning is not None and any(
        isinstance(value, tuple) for value in item.conditioning.values.values()
    )


def _both_kinds(rows: CsvRows) -> Iterator[str]:
    without = row_numbers(rows, "source", False)
    if 0 < len(without) < len(rows):
        yield (
            f"{len(without)} of {len(rows)} rows have no source_image ({_numbers(without)}) and the others have: "
            "give every row one, or make two routes"
        )


def _without_target(rows: CsvRows, method: str) -> Iterator[str]:
    without = row_numbers(rows, "target", False)
    if without:
        yield (
            f"{len(without)} of {len(rows)} rows have no target_image ({_numbers(without)}), which {method} learns "
            "from: give every row one, or use another method"
        )


def _looked_at(recipe: Recipe, loaded: Mapping[Bucket, CsvRows]) -> list[Sequence[CsvRow]]:
    """By bucket of the recipe, the rows of which the images are decoded."""
    own = [loaded.get(route.bucket, ()) for route in recipe.routes]
    drawn: list[list[int]] = []
    if (
        recipe.learned_router is None
        and recipe.aspects == "one"
        and all(own)
        and any(len(rows) > DECODED for rows in own)
    ):
        drawn = drawn_rows(recipe, [len(rows) for rows in own], launched())
    found: list[Sequence[CsvRow]] = []
    for number, bucket in enumerate(recipe.buckets()):
        rows = loaded.get(bucket, ())
        found.append([rows[row] for row in drawn[number]] if drawn and len(rows) > DECODED else rows)
    return found


def _images(rows: Sequence[CsvRow], targets: bool, seen: dict[Path, str]) -> Iterator[str]:
    """A message for each image file that cannot be decoded; `seen` holds the results of earlier buckets.

    targets: whether the target images are used too.
    """
    images = [
        (row.number, image)
        for row in rows
        for image in (row.item.source, row.item.target if targets else None)
        if isinstance(image, Path)
    ]
    new = sorted({image for _, image in images} - seen.keys())
    with ThreadPoolExecutor() as pool:
        seen.update(zip(new, pool.map(picture_fault, new), strict=True))
    faulty = [(number, seen[image]) for number, image in images if seen[image]]
    for number, message in faulty[:MAX_ROW_FAULTS]:
        yield f", row {number}: {message}"
    if len(faulty) > MAX_ROW_FAULTS:
        yield f": {len(faulty) - MAX_ROW_FAULTS} more images cannot be used"


def _numbers(numbers: list[int]) -> str:
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"row {', '.join(map(str, numbers[:5]))}{more}"
