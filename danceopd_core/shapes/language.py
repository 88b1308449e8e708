"""Captions over GenEval's six categories and edit instructions over the paper's six, with what each one asks for."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from .scene import (
    BACKGROUNDS,
    COLOURS,
    PLACES,
    RELATIONS,
    SHAPES,
    SIZES,
    NoRoom,
    Scene,
    Thing,
    Wanted,
    _pick,
    free_spot,
    sample_radius,
    sample_scene,
)

T2I = ("single", "two", "count", "colour", "position", "colour_attribute")
LOCAL = ("add", "replace", "remove", "recolour")
GLOBAL = ("background", "style")
EDIT = LOCAL + GLOBAL
KINDS: dict[str, tuple[str, ...]] = {"t2i": T2I, "edit": EDIT, "local": LOCAL, "global": GLOBAL} | {
    category: (category,) for category in T2I + EDIT
}
"""What a bucket of the embedded world may hold: categories of captions or of edits."""
NUMBERS = {2: "two", 3: "three"}
STYLE_WORDS = {"shaded": "make it realistic", "flat": "make it flat"}


@dataclass(frozen=True)
class Caption:
    """A text-to-image prompt and what its picture must show (and nothing more)."""

    category: str
    text: str
    wanted: tuple[Wanted, ...]
    background: str | None = None
    relation: str | None = None

    @property
    def key(self) -> str:
        """The same for two captions that ask for the same thing in other words or another order."""
        wants = [f"{w.phrase()} {w.place}" for w in self.wanted]
        relation = self.relation
        if relation in ("right of", "below"):
            wants, relation = wants[::-1], {"right of": "left of", "below": "above"}[relation]
        elif relation is None:
            wants = sorted(wants)
        return f"{self.category}|{'+'.join(wants)}|{relation}|{self.background}"

    def scene(self, rng: np.random.Generator, style: str = "flat", loose: bool = False) -> Scene:
        """A random scene that this caption describes."""
        return sample_scene(rng, self.wanted, self.background, self.relation, style, loose)


@dataclass(frozen=True)
class Edit:
    """An instruction with its source, its ground truth, and the one thing it touches (None: all of the picture)."""

    category: str
    text: str
    source: Scene
    target: Scene
    touched: Thing | None = None
    wanted: Wanted | None = None

    @property
    def key(self) -> str:
        things = sorted(f"{t.colour} {t.shape}" for t in self.source.things)
        return f"{self.category}|{'+'.join(things)}|{self.source.background}|{self.source.style}|{self.text}"


def held_out(item: Caption | Edit) -> bool:
    """Whether an item is kept for evaluation: half of all keys, by a hash, so that no list must be shipped."""
    return bool(zlib.crc32(item.key.encode()) >> 16 & 1)


def _maybe(rng: np.random.Generator, table) -> str | None:
    return _pick(rng, table) if rng.random() < 0.5 else None


def _with_background(text: str, background: str | None) -> str:
    return f"{text} on a {background} background" if background else text


def _article(want: Wanted) -> str:
    phrase = want.phrase()
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def sample_caption(rng: np.random.Generator, category: str | None = None) -> Caption:
    """A random caption of one of the six categories."""
    category = category or _pick(rng, T2I)
    background, relation = _maybe(rng, BACKGROUNDS), None
    if category == "single":
        want = Wanted(_pick(rng, SHAPES), size=_maybe(rng, SIZES), place=_maybe(rng, PLACES))
        wanted: tuple[Wanted, ...] = (want,)
        text = f"{_article(want)} {want.place}" if want.place else _article(want)
    elif category == "colour":
        wanted = (Wanted(_pick(rng, SHAPES), _pick(rng, COLOURS), _maybe(rng, SIZES)),)
        text = _article(wanted[0])
    elif category == "count":
        number = int(rng.integers(2, 4))
        want = Wanted(_pick(rng, SHAPES), _maybe(rng, COLOURS), _maybe(rng, SIZES))
        wanted = (want,) * number
        text = f"{NUMBERS[number]} {want.phrase()}{'es' if want.shape == 'cross' else 's'}"
    else:
        first, second = (SHAPES[i] for i in rng.choice(len(SHAPES), 2, replace=False))
        if category in ("two", "position"):
            wanted = (Wanted(first, size=_maybe(rng, SIZES)), Wanted(second, size=_maybe(rng, SIZES)))
            relation = _pick(rng, RELATIONS) if category == "position" else None
        else:
            colours = [tuple(COLOURS)[i] for i in rng.choice(len(COLOURS), 2, replace=False)]
            wanted = (Wanted(first, colours[0]), Wanted(second, colours[1]))
        text = f"{_article(wanted[0])} {relation or 'and'} {_article(wanted[1])}"
    return Caption(category, _with_background(text, background), wanted, background, relation)


def _other(rng: np.random.Generator, table, than: str) -> str:
    return _pick(rng, [name for name in table if name != than])


def sample_edit(rng: np.random.Generator, category: str | None = None) -> Edit:
    """A random instruction of one of the six categories, on a random source of one to three distinct things."""
    category = category or _pick(rng, EDIT)
    count = int(rng.integers(2, 4)) if category == "remove" else int(rng.integers(1, 3 if category == "add" else 4))
    style = "shaded" if rng.random() < (0.5 if category == "style" else 0.15) else "flat"
    while True:
        source = sample_scene(rng, (Wanted(),) * count, style=style)
        if len({(t.shape, t.colour) for t in source.things}) < count:
            continue
        try:
            return _edit(rng, category, source)
        except NoRoom:
            continue


def _edit(rng: np.random.Generator, category: str, source: Scene) -> Edit:
    thing = source.things[int(rng.integers(len(source.things)))]
    name = f"the {thing.colour} {thing.shape}"
    if category == "add":
        while True:
            want = Wanted(_pick(rng, SHAPES), _pick(rng, COLOURS), place=_maybe(rng, PLACES))
            if all((t.shape, t.colour) != (want.shape, want.colour) for t in source.things):
                break
        radius = sample_radius(rng)
        x, y = free_spot(rng, radius, source.things, want.place)
        new = Thing(str(want.shape), str(want.colour), x, y, radius)
        target = replace(source, things=(*source.things, new))
        text = f"add {_article(want)} {want.place or ''}".rstrip()
        return Edit(category, text, source, target, None, want)
    if category == "remove":
        return Edit(category, f"remove {name}", source, source.without(thing), thing)
    if category == "replace":
        want = Wanted(_other(rng, SHAPES, thing.shape), _pick(rng, COLOURS))
        new = thing._replace(shape=str(want.shape), colour=str(want.colour))
        text = f"replace {name} with {_article(want)}"
        return Edit(category, text, source, source.swapped(thing, new), thing, want)
    if category == "recolour":
        want = Wanted(thing.shape, _other(rng, COLOURS, thing.colour))
        text = f"make {name} {want.colour}"
        new = thing._replace(colour=str(want.colour))
        return Edit(category, text, source, source.swapped(thing, new), thing, want)
    if category == "background":
        background = _other(rng, BACKGROUNDS, source.background)
        text = f"change the background to {background}"
        return Edit(category, text, source, replace(source, background=background))
    if category == "style":
        style = "flat" if source.style == "shaded" else "shaded"
        return Edit(category, STYLE_WORDS[style], source, replace(source, style=style))
    raise ValueError(f"unknown category '{category}'; there are {', '.join(T2I + EDIT)}")


def items(kind: tuple[str, ...], count: int, seed: int, held: bool = True) -> list[Caption | Edit]:
    """`count` distinct items of each category of `kind`, all held out or all for training, repeatable from the seed."""
    found: list[Caption | Edit] = []
    for number, category in enumerate(kind):
        rng = np.random.default_rng((seed, number, zlib.crc32(category.encode())))
        seen: set[str] = set()
        fruitless = 0
        while len(seen) < count and fruitless < 4000:
            item = sample_caption(rng, category) if category in T2I else sample_edit(rng, category)
            fruitless += 1
            if held_out(item) == held and item.key not in seen:
                seen.add(item.key)
                found.append(item)
                fruitless = 0
        if len(seen) < count:
            raise InputError(f"category '{category}' has only {len(seen)} distinct items; {count} were asked for")
    return found


def vocabulary() -> list[str]:
    """Every word of the language, for the tokenizer."""
    words = {w for p in (*PLACES, *RELATIONS, *STYLE_WORDS.values()) for w in p.split()}
    words |= {*SHAPES, *(f"{s}s" for s in SHAPES), "crosses", *COLOURS, *BACKGROUNDS, *SIZES, *NUMBERS.values()}
    words |= set(
        ["a", "an", "and", "on", "background", "add", "remove", "replace", "with", "make", "change", "the", "to"]
    )
    return sorted(words)
