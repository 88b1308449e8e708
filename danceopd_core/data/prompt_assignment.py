"""Assigns prompts without a route to routes: by whether they have a source picture, then by the learned router.

A route consists of either edits or text-to-image prompts. A prompt with a source picture can only be assigned to a
route of edits, any other only to a text-to-image route; if that leaves one route, no classifier is needed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..algorithm.fields import Conditioning
from .csv_rows import Item
from .prompt_classifier import MIN_PROMPTS, ClassifierScore, train_classifier


class EncodedBucket(NamedTuple):
    """An encoded bucket. clean: (n, ...) latents of its targets, for a method that needs them."""

    items: tuple[Item, ...]
    samples: Conditioning
    clean: Tensor | None = None


class PromptGroup(NamedTuple):
    """Prompts of one kind (edits or text-to-image), with the routes that they may be assigned to; both by index."""

    edits: bool
    routes: list[int]
    rows: list[int]


@dataclass(frozen=True)
class PromptAssignment:
    """The assignment of the prompts, and the scores of the classifiers behind it.

    scores: by route, of those with a classifier. assigned: (prompt, route, probability) of each prompt.
    """

    names: tuple[str, ...]
    scores: dict[str, ClassifierScore]
    assigned: tuple[tuple[str, str, float], ...]

    @property
    def accuracy(self) -> float:
        """The fraction of held-out prompts that are classified correctly."""
        correct, held_out = self._totals()
        return correct / held_out

    def digest(self) -> str:
        """SHA-256 of the assignment of prompts to routes."""
        pairs = [(prompt, route) for prompt, route, _ in self.assigned]
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()

    def text(self) -> str:
        """A line of progress: accuracy, and how many prompts each route received."""
        correct, held_out = self._totals()
        counts = ", ".join(f"{count} assigned to '{name}'" for name, count in self._counts().items())
        return (
            f"the learned router is correct on {correct} of {held_out} held-out prompts ({self.accuracy:.1%}); {counts}"
        )

    def report(self) -> dict[str, Any]:
        """The content of router.json: overall accuracy, score and number of prompts by route, the route of each prompt.

        The keys are those of version 0.1.0.
        """
        counts = self._counts()
        routes: dict[str, Any] = {name: {"joined": counts[name]} for name in self.names}
        for name, score in self.scores.items():
            routes[name] = {
                "learned": score.trained,
                "held_out": score.held_out,
                "right": score.correct,
                "accuracy": score.correct / score.held_out,
                **routes[name],
            }
        prompts = [{"prompt": p, "route": r, "probability": round(share, 4)} for p, r, share in self.assigned]
        return {"accuracy": self.accuracy, "routes": routes, "prompts": prompts}

    def _totals(self) -> tuple[int, int]:
        return sum(s.correct for s in self.scores.values()), sum(s.held_out for s in self.scores.values())

    def _counts(self) -> dict[str, int]:
        counts = Counter(route for _, route, _ in self.assigned)
        return {name: counts[name] for name in self.names}


def candidate_routes(route_items: Sequence[Sequence[Item]], prompts: Sequence[Item]) -> list[PromptGroup]:
    """The prompts grouped by kind, text-to-image first, with the routes of that kind; without empty groups."""
    groups = []
    for edits in (False, True):
        rows = [row for row, item in enumerate(prompts) if (item.source is not None) == edits]
        routes = [number for number, items in enumerate(route_items) if (items[0].source is not None) == edits]
        groups += [PromptGroup(edits, routes, rows)] if rows else []
    return groups


def assignment_faults(
    names: Sequence[str], route_items: Sequence[Sequence[Item]], prompts: Sequence[Item]
) -> Iterator[str]:
    """Why these prompts cannot be assigned to routes: a message for each fault."""
    groups = candidate_routes(route_items, prompts)
    for group in groups:
        if not group.routes:
            kind = "a source picture, but no route has any" if group.edits else "no source picture, but all routes have"
            yield f"{len(group.rows)} of {len(prompts)} prompts have {kind}: remove them, or add a route"
    if all(len(group.routes) < 2 for group in groups) and any(group.routes for group in groups):
        yield (
            "there is only one route for its prompts, so there is nothing to choose: give two routes that are both "
            "edits or both text-to-image, or put the prompts into that route's bucket"
        )
    for number in sorted({number for group in groups if len(group.routes) > 1 for number in group.routes}):
        count = len({item.prompt for item in route_items[number]})
        if count < MIN_PROMPTS:
            yield f"route {names[number]!r} has {count} different prompts to train on: give it {MIN_PROMPTS} or more"


def describe_assignment(route_items: Sequence[Sequence[Item]], prompts: Sequence[Item], holdout: float) -> str:
    """What the learned router will do, as a line of text."""
    groups = candidate_routes(route_items, prompts)
    routes = {number for group in groups if len(group.routes) > 1 for number in group.routes}
    count = sum(len(route_items[number]) for number in routes)
    return (
        f"a router will be trained on {count} prompts of {len(routes)} routes, with {holdout:.0%} of them held out to "
        f"test it, and will assign {len(prompts)} prompts"
    )


def assign_prompts(
    names: Sequence[str],
    buckets: Sequence[EncodedBucket],
    negatives: Sequence[Sequence[str]],
    unrouted: EncodedBucket,
    embed: Callable[[Conditioning], Tensor],
    holdout: float,
    seed: int,
) -> tuple[list[EncodedBucket], PromptAssignment]:
    """The routes' buckets, each followed by the prompts of `unrouted` that are assigned to it, and the assignment.

    negatives: the negative prompts of each route; `unrouted` must be encoded with all of them. embed: (n, D)
    embeddings of encoded prompts.
    """
    assigned = [0] * len(unrouted.items)
    probability = [1.0] * len(unrouted.items)
    scores: dict[str, ClassifierScore] = {}
    for group in candidate_routes([bucket.items for bucket in buckets], unrouted.items):
        log_probs = torch.zeros(len(group.rows), 1)
        if len(group.routes) > 1:
            classes = [buckets[number] for number in group.routes]
            texts = [[item.prompt for item in bucket.items] for bucket in classes]
            features = [embed(bucket.samples) for bucket in classes]
            classifier, class_scores = train_classifier(features, texts, holdout, seed)
            scores |= {names[number]: score for number, score in zip(group.routes, class_scores, strict=True)}
            log_probs = classifier(embed(unrouted.samples.select(group.rows)))
        best = log_probs.max(1)
        for row, index, value in zip(group.rows, best.indices.tolist(), best.values.exp().tolist(), strict=True):
            assigned[row], probability[row] = group.routes[index], value
    extended = []
    for number, bucket in enumerate(buckets):
        rows = [row for row, route in enumerate(assigned) if route == number]
        extended.append(_extended(bucket, unrouted, rows, negatives[number]))
    prompts = (item.prompt for item in unrouted.items)
    triples = tuple((p, names[n], share) for p, n, share in zip(prompts, assigned, probability, strict=True))
    return extended, PromptAssignment(tuple(names), scores, triples)


def _extended(
    bucket: EncodedBucket, unrouted: EncodedBucket, rows: Sequence[int], negatives: Sequence[str]
) -> EncodedBucket:
    samples = [
        replace(sample, nulls={negative: sample.nulls[negative] for negative in negatives})
        for sample in unrouted.samples.select(rows).samples
    ]
    clean = bucket.clean
    if clean is not None and unrouted.clean is not None:
        clean = torch.cat([clean, unrouted.clean[list(rows)]])
    return EncodedBucket(
        bucket.items + tuple(unrouted.items[row] for row in rows), bucket.samples + Conditioning(tuple(samples)), clean
    )
