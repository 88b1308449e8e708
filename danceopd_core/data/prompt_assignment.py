"""Prompts without a route join one: by having a source picture or not, and then as the learned router tells.

A route is all edits or all text, and a prompt without a picture has nothing to edit, nor can a text-to-image route
show one. So a prompt with a source picture chooses among the routes of edits, and any other among the routes of text;
where that leaves one route, the prompt needs no router.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..algorithm.fields import Conditioning, Sample
from .csv_rows import Item
from .prompt_classifier import FEWEST, Marks, learn


class EncodedBucket(NamedTuple):
    """A bucket, encoded. clean: (n, ...) latents of its targets, for a method that needs them."""

    items: tuple[Item, ...]
    samples: Conditioning
    clean: Tensor | None = None


class Choice(NamedTuple):
    """The routes that some prompts may join, and these prompts, both by index."""

    edits: bool
    routes: list[int]
    rows: list[int]


@dataclass(frozen=True)
class PromptAssignment:
    """What the learned router was told, how it did, and which route it gave to each prompt.

    marks: by route, of those that it chose among. assigned: (prompt, route, probability) of each prompt.
    """

    names: tuple[str, ...]
    marks: dict[str, Marks]
    assigned: tuple[tuple[str, str, float], ...]

    @property
    def accuracy(self) -> float:
        """The part of the held-out prompts that were told rightly."""
        right, held_out = self._exam()
        return right / held_out

    def digest(self) -> str:
        """SHA-256 of which prompt has joined which route."""
        told = [(prompt, route) for prompt, route, _ in self.assigned]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def text(self) -> str:
        """In a line, for the person who waits."""
        right, held = self._exam()
        joined = ", ".join(f"{count} join '{name}'" for name, count in self._joined().items())
        return f"the learned router is right on {right} of {held} held-out prompts ({self.accuracy:.1%}); {joined}"

    def report(self) -> dict[str, Any]:
        """For a file: accuracy over all, marks and accuracy by route, how many joined it, and each prompt's route."""
        joined = self._joined()
        routes: dict[str, Any] = {name: {"joined": joined[name]} for name in self.names}
        for name, marks in self.marks.items():
            routes[name] = {**asdict(marks), "accuracy": marks.right / marks.held_out, **routes[name]}
        prompts = [{"prompt": p, "route": r, "probability": round(share, 4)} for p, r, share in self.assigned]
        return {"accuracy": self.accuracy, "routes": routes, "prompts": prompts}

    def _exam(self) -> tuple[int, int]:
        return sum(m.right for m in self.marks.values()), sum(m.held_out for m in self.marks.values())

    def _joined(self) -> dict[str, int]:
        counts = Counter(route for _, route, _ in self.assigned)
        return {name: counts[name] for name in self.names}


def choices(own: Sequence[Sequence[Item]], asked: Sequence[Item]) -> list[Choice]:
    """What the prompts of `asked` may join of the routes with these items: one Choice for text, one for edits,
    if there are such prompts."""
    found = []
    for edits in (False, True):
        rows = [row for row, item in enumerate(asked) if (item.source is not None) == edits]
        routes = [number for number, items in enumerate(own) if (items[0].source is not None) == edits]
        found += [Choice(edits, routes, rows)] if rows else []
    return found


def unroutable(names: Sequence[str], own: Sequence[Sequence[Item]], asked: Sequence[Item]) -> Iterator[str]:
    """Why these prompts cannot be routed: a line for each fault."""
    found = choices(own, asked)
    for choice in found:
        if not choice.routes:
            kind = "a source picture, and no route has any" if choice.edits else "no source picture, as all routes have"
            yield f"learned_router: {len(choice.rows)} of {len(asked)} prompts have {kind}: remove them, or add a route"
    if all(len(choice.routes) < 2 for choice in found) and any(choice.routes for choice in found):
        yield (
            "learned_router: its prompts have only one route to join, so there is nothing to choose: give two routes "
            "that are both edits or both text, or put the prompts into that route's bucket"
        )
    for number in sorted({number for choice in found if len(choice.routes) > 1 for number in choice.routes}):
        count = len({item.prompt for item in own[number]})
        if count < FEWEST:
            yield (
                f"learned_router: route {names[number]!r} has {count} different prompts to learn from: "
                f"give it {FEWEST} or more"
            )


def plan(own: Sequence[Sequence[Item]], asked: Sequence[Item], holdout: float) -> str:
    """What will be done, in words."""
    taught = {number for choice in choices(own, asked) if len(choice.routes) > 1 for number in choice.routes}
    count = sum(len(own[number]) for number in taught)
    return (
        f"a router will be trained on {count} prompts of {len(taught)} routes, but for {holdout:.0%} of them to test "
        f"it, and asked for {len(asked)}"
    )


def join(
    names: Sequence[str],
    own: Sequence[EncodedBucket],
    negatives: Sequence[Sequence[str]],
    asked: EncodedBucket,
    embed: Callable[[Conditioning], Tensor],
    holdout: float,
    seed: int,
) -> tuple[list[EncodedBucket], PromptAssignment]:
    """The routes' buckets with the prompts of `asked` behind their own, and how that came about.

    negatives: the negative prompts of each route, of which those of all have to be encoded in `asked`. embed: (n, D)
    embeddings of encoded prompts.
    """
    route = [0] * len(asked.items)
    odds = [1.0] * len(asked.items)
    marks: dict[str, Marks] = {}
    for choice in choices([part.items for part in own], asked.items):
        told = torch.zeros(len(choice.rows), 1)
        if len(choice.routes) > 1:
            known = [own[number] for number in choice.routes]
            texts = [[item.prompt for item in part.items] for part in known]
            classifier, found = learn([embed(part.samples) for part in known], texts, holdout, seed)
            marks |= {names[number]: one for number, one in zip(choice.routes, found, strict=True)}
            told = classifier(embed(asked.samples.select(choice.rows)))
        best = told.max(1)
        for row, place, log in zip(choice.rows, best.indices.tolist(), best.values.exp().tolist(), strict=True):
            route[row], odds[row] = choice.routes[place], log
    grown = []
    for number, part in enumerate(own):
        rows = [row for row, joined in enumerate(route) if joined == number]
        grown.append(_with(part, asked, rows, negatives[number]))
    prompts = (item.prompt for item in asked.items)
    assigned = tuple((p, names[n], share) for p, n, share in zip(prompts, route, odds, strict=True))
    return grown, PromptAssignment(tuple(names), marks, assigned)


def _with(part: EncodedBucket, asked: EncodedBucket, rows: Sequence[int], negatives: Sequence[str]) -> EncodedBucket:
    samples = [
        Sample(sample.values, {negative: sample.nulls[negative] for negative in negatives})
        for sample in asked.samples.select(rows).samples
    ]
    clean = part.clean
    if clean is not None and asked.clean is not None:
        clean = torch.cat([clean, asked.clean[list(rows)]])
    return EncodedBucket(
        part.items + tuple(asked.items[row] for row in rows), part.samples + Conditioning(tuple(samples)), clean
    )
