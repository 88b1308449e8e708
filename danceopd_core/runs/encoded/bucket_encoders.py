"""Encodes the buckets of a run with all models that are asked under them; what is kept already is found by key."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ...algorithm.fields import Conditioning, Sample, Samples
from ...algorithm.reading_ahead import CleanLatents
from ...algorithm.trainer import ProcessGroup
from ...data.cache_folder import CacheFolder
from ...data.csv_rows import Item
from ...data.prompt_assignment import EncodedBucket
from ...data.sample_store import ShardStore
from ...listening import one_more, reached, work
from ...models.backbone import Backbone
from ...recipe.schema import Teacher
from ..files.stored_samples import (
    LATENTS,
    Share,
    StoredConditioning,
    StoredLatents,
    StoredSamples,
    key_of,
    picture_digest,
)
from ..plans.encoding_identity import namespace
from ..plans.other_models import OtherModel, own_models
from ..plans.planning import RunPlan, negatives_of
from ..plans.sources import other_source
from .encoding_items import as_tensor, encode_for, encode_items

EXAMPLES = 8
SECONDS = 2.0
"""Between two lines of progress."""


class RouteBucket(NamedTuple):
    """An encoded bucket. clean: latents of its targets, for a method that needs them. examples: some of its samples,
    of one size. sizes: for each sample the number of its size among the run's; None: all have the first."""

    samples: Samples
    clean: CleanLatents | None
    examples: Conditioning
    sizes: Sequence[int] | None = None


@dataclass(eq=False)
class Encoders:
    """The models of a run that encode. kept: where encoded samples last between runs; None: nowhere."""

    plan: RunPlan
    backbone: Backbone
    others: Mapping[str, OtherModel]
    processes: ProcessGroup
    kept: CacheFolder | None
    log: Callable[[str], None]
    _stores: dict[str | None, ShardStore | None] = field(default_factory=dict)

    def bucket(
        self,
        what: str,
        items: Sequence[Item],
        teachers: Sequence[Teacher],
        rows: Sequence[int],
        sizes: Sequence[int] | None = None,
    ) -> RouteBucket:
        """Encodes these rows of a bucket, now; others when they are asked for.

        what: says so. sizes: as of a `RouteBucket`.
        """
        found = self._bucket(what, items, teachers, rows)
        if sizes is None:
            return found
        same = [row for row in rows if sizes[row] == sizes[rows[0]]][:EXAMPLES]
        return found._replace(sizes=sizes, examples=found.samples.select(same))

    def _bucket(
        self, what: str, items: Sequence[Item], teachers: Sequence[Teacher], rows: Sequence[int]
    ) -> RouteBucket:
        clean = self._targets(items) if self.plan.method.needs_clean else None
        if clean is not None:
            self._prepare(what, clean.targets, rows)
        size = self.plan.recipe.width, self.plan.recipe.height
        if any(items[row].conditioning is not None for row in rows[:1]):
            with work(what):
                samples = encode_for(teachers, self.backbone, self.others, items, *size)
            return RouteBucket(samples, clean, samples)
        models = own_models(teachers)
        stored = StoredConditioning(
            self._samples(items, negatives_of(teachers), None),
            {model: self._samples(items, negatives_of(teachers, model), model) for model in models},
        )
        for part in stored.parts():
            self._prepare(what, part, rows)
        if len(set(rows)) == len(items) and all(part.in_memory for part in stored.parts()):
            samples = stored.select(range(len(items)))
            return RouteBucket(samples, clean, samples)
        return RouteBucket(stored, clean, stored.select(rows[:EXAMPLES]))

    def _samples(self, items: Sequence[Item], negatives: Sequence[str], model: str | None) -> StoredSamples:
        backbone = self.backbone if model is None else self.others[model].backbone
        size = self.plan.recipe.width, self.plan.recipe.height

        def encode(part: Sequence[Item]) -> Sequence[Sample]:
            return encode_items(backbone, part, *size, negatives).samples

        def key(item: Item) -> str:
            picture = picture_digest(item.source)
            return key_of("sample", item.prompt, picture, picture and (item.size or size), list(negatives))

        return StoredSamples(items, encode, key, self._store(model))

    def _targets(self, items: Sequence[Item]) -> StoredLatents:
        size = self.plan.recipe.width, self.plan.recipe.height

        def encode(part: Sequence[Item]) -> Sequence[Sample]:
            samples = []
            for item in part:
                samples.append(Sample({LATENTS: _latents(self.backbone, item, *(item.size or size))}))
                one_more()
            return samples

        def key(item: Item) -> str:
            return key_of(LATENTS, picture_digest(item.target), item.size or size)

        return StoredLatents(StoredSamples(items, encode, key, self._store(None)))

    def _prepare(self, what: str, stored: StoredSamples, rows: Sequence[int]) -> None:
        told = time.monotonic()

        def tell(done: int) -> None:
            nonlocal told
            if not reached(done) and done < len(rows) and time.monotonic() - told > SECONDS:
                told = time.monotonic()
                self.log(f"encoded {done} of {len(rows)}")

        share = Share(self.processes.rank, self.processes.size, self._wait)
        with work(what, len(rows)):
            stored.prepare(rows, share, tell)

    def _wait(self) -> None:
        """Until all processes have come here: their mean is known to none before."""
        self.processes.mean([torch.zeros(1)])

    def _store(self, model: str | None) -> ShardStore | None:
        if model not in self._stores:
            self._stores[model] = self._opened(model)
        return self._stores[model]

    def _opened(self, model: str | None) -> ShardStore | None:
        source = self.plan.source if model is None else other_source(self.plan.source, model)
        identity = source.encoding_identity()
        if self.kept is None or identity is None:
            return None
        backbone = self.backbone if model is None else self.others[model].backbone
        digest = namespace(identity, self.plan.recipe.dtype, next(backbone.network.parameters()).device.type)
        about = {"model": model or self.plan.recipe.model, "family": backbone.family}
        kept, folder = self.kept, self.kept.root / digest

        def before(size: int) -> None:
            kept.describe(folder, about)
            kept.make_room(size)

        return ShardStore(folder, before)


def whole(items: Sequence[Item], bucket: RouteBucket) -> EncodedBucket:
    """A bucket with all its rows at hand; stored ones are read where they lie."""
    rows = list(range(len(items)))
    clean = bucket.clean
    return EncodedBucket(
        tuple(items),
        bucket.samples.select(rows),
        clean if clean is None or isinstance(clean, Tensor) else clean[rows],
    )


def _latents(backbone: Backbone, item: Item, width: int, height: int) -> Tensor:
    """(...) of the target picture, which every item has where the method needs them."""
    if item.target is None:
        raise ValueError("an item without a target picture has no latents")
    return backbone.encode_image(as_tensor(item.target, width, height)[None]).cpu()[0]
