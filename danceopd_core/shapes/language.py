"""Captions in GenEval's six categories and edit instructions in the paper's six, with their ground truth."""

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
    NoFreePlace,
    ObjectSpec,
    Scene,
    SceneObject,
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
"""Kinds of buckets of the embedded world -> their categories of captions or of edits."""
NUMBERS = {2: "two", 3: "three"}
STYLE_WORDS = {"shaded": "make it realistic", "flat": "make it flat"}


@dataclass(frozen=True)
class Caption:
    """A text-to-image prompt, and the objects that its image must show without any others."""

    category: str
    text: str
    specs: tuple[ObjectSpec, ...]
    background: str | None = None
    relation: str | None = None

    @property
    def key(self) -> str:
        """Equal for captions of the same meaning, whatever their wording and order."""
        parts = [f"{w.phrase()} {w.place}" for w in self.specs]
        relation = self.relation
        if relation in ("right of", "below"):
            parts, relation = parts[::-1], {"right of": "left of", "below": "above"}[relation]
        elif relation is None:
            parts = sorted(parts)
        return f"{self.category}|{'+'.join(parts)}|{relation}|{self.background}"

    def scene(self, rng: np.random.Generator, style: str = "flat", free_layout: bool = False) -> Scene:
        """A random scene that this caption describes."""
        return sample_scene(rng, self.specs, self.background, self.relation, style, free_layout)


@dataclass(frozen=True)
class Edit:
    """An instruction with its source and target.

    edited: the object that is changed or removed, if it is one. spec: of the new or changed object.
    """

    category: str
    text: str
    source: Scene
    target: Scene
    edited: SceneObject | None = None
    spec: ObjectSpec | None = None

    @property
    def key(self) -> str:
        objects = sorted(f"{t.colour} {t.shape}" for t in self.source.objects)
        return f"{self.category}|{'+'.join(objects)}|{self.source.background}|{self.source.style}|{self.text}"


def is_held_out(item: Caption | Edit) -> bool:
    """Whether an item is reserved for evaluation: half of all keys, chosen by a hash of the key."""
    return bool(zlib.crc32(item.key.encode()) >> 16 & 1)


def _maybe(rng: np.random.Generator, table) -> str | None:
    return _pick(rng, table) if rng.random() < 0.5 else None


def _with_background(text: str, background: str | None) -> str:
    return f"{text} on a {background} background" if background else text


def _article(spec: ObjectSpec) -> str:
    phrase = spec.phrase()
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def sample_caption(rng: np.random.Generator, category: str | None = None) -> Caption:
    """A random caption of one of the six categories."""
    category = category or _pick(rng, T2I)
    background, relation = _maybe(rng, BACKGROUNDS), None
    if category == "single":
        spec = ObjectSpec(_pick(rng, SHAPES), size=_maybe(rng, SIZES), place=_maybe(rng, PLACES))
        specs: tuple[ObjectSpec, ...] = (spec,)
        text = f"{_article(spec)} {spec.place}" if spec.place else _article(spec)
    elif category == "colour":
        specs = (ObjectSpec(_pick(rng, SHAPES), _pick(rng, COLOURS), _maybe(rng, SIZES)),)
        text = _article(specs[0])
    elif category == "count":
        number = int(rng.integers(2, 4))
        spec = ObjectSpec(_pick(rng, SHAPES), _maybe(rng, COLOURS), _maybe(rng, SIZES))
        specs = (spec,) * number
        text = f"{NUMBERS[number]} {spec.phrase()}{'es' if spec.shape == 'cross' else 's'}"
    else:
        first, second = (SHAPES[i] for i in rng.choice(len(SHAPES), 2, replace=False))
        if category in ("two", "position"):
            specs = (ObjectSpec(first, size=_maybe(rng, SIZES)), ObjectSpec(second, size=_maybe(rng, SIZES)))
            relation = _pick(rng, RELATIONS) if category == "position" else None
        else:
            colours = [tuple(COLOURS)[i] for i in rng.choice(len(COLOURS), 2, replace=False)]
            specs = (ObjectSpec(first, colours[0]), ObjectSpec(second, colours[1]))
        text = f"{_article(specs[0])} {relation or 'and'} {_article(specs[1])}"
    return Caption(category, _with_background(text, background), specs, background, relation)


def _other(rng: np.random.Generator, table, than: str) -> str:
    return _pick(rng, [name for name in table if name != than])


def sample_edit(rng: np.random.Generator, category: str | None = None) -> Edit:
    """A random instruction of one of the six categories, for a random source of one to three distinct objects."""
    category = category or _pick(rng, EDIT)
    count = int(rng.integers(2, 4)) if category == "remove" else int(rng.integers(1, 3 if category == "add" else 4))
    style = "shaded" if rng.random() < (0.5 if category == "style" else 0.15) else "flat"
    while True:
        source = sample_scene(rng, (ObjectSpec(),) * count, style=style)
        if len({(t.shape, t.colour) for t in source.objects}) < count:
            continue
        try:
            return _edit(rng, category, source)
        except NoFreePlace:
            continue


def _edit(rng: np.random.Generator, category: str, source: Scene) -> Edit:
    obj = source.objects[int(rng.integers(len(source.objects)))]
    name = f"the {obj.colour} {obj.shape}"
    if category == "add":
        while True:
            spec = ObjectSpec(_pick(rng, SHAPES), _pick(rng, COLOURS), place=_maybe(rng, PLACES))
            if all((t.shape, t.colour) != (spec.shape, spec.colour) for t in source.objects):
                break
        radius = sample_radius(rng)
        x, y = free_spot(rng, radius, source.objects, spec.place)
        new = SceneObject(str(spec.shape), str(spec.colour), x, y, radius)
        target = replace(source, objects=(*source.objects, new))
        text = f"add {_article(spec)} {spec.place or ''}".rstrip()
        return Edit(category, text, source, target, None, spec)
    if category == "remove":
        return Edit(category, f"remove {name}", source, source.without(obj), obj)
    if category == "replace":
        spec = ObjectSpec(_other(rng, SHAPES, obj.shape), _pick(rng, COLOURS))
        new = obj._replace(shape=str(spec.shape), colour=str(spec.colour))
        text = f"replace {name} with {_article(spec)}"
        return Edit(category, text, source, source.swapped(obj, new), obj, spec)
    if category == "recolour":
        spec = ObjectSpec(obj.shape, _other(rng, COLOURS, obj.colour))
        text = f"make {name} {spec.colour}"
        new = obj._replace(colour=str(spec.colour))
        return Edit(category, text, source, source.swapped(obj, new), obj, spec)
    if category == "background":
        background = _other(rng, BACKGROUNDS, source.background)
        text = f"change the background to {background}"
        return Edit(category, text, source, replace(source, background=background))
    if category == "style":
        style = "flat" if source.style == "shaded" else "shaded"
        return Edit(category, STYLE_WORDS[style], source, replace(source, style=style))
    raise ValueError(f"unknown category '{category}'; there are {', '.join(T2I + EDIT)}")


def items(kind: tuple[str, ...], count: int, seed: int, held_out: bool = True) -> list[Caption | Edit]:
    """`count` distinct items of each category, all held out or all for training, repeatable from the seed.

    InputError if a category has too few."""
    chosen: list[Caption | Edit] = []
    for number, category in enumerate(kind):
        rng = np.random.default_rng((seed, number, zlib.crc32(category.encode())))
        seen: set[str] = set()
        rejected = 0
        while len(seen) < count and rejected < 4000:
            item = sample_caption(rng, category) if category in T2I else sample_edit(rng, category)
            rejected += 1
            if is_held_out(item) == held_out and item.key not in seen:
                seen.add(item.key)
                chosen.append(item)
                rejected = 0
        if len(seen) < count:
            raise InputError(f"category '{category}' has only {len(seen)} distinct items; {count} were asked for")
    return chosen


def vocabulary() -> list[str]:
    """Every word of the language, for the tokenizer."""
    words = {w for p in (*PLACES, *RELATIONS, *STYLE_WORDS.values()) for w in p.split()}
    words |= {*SHAPES, *(f"{s}s" for s in SHAPES), "crosses", *COLOURS, *BACKGROUNDS, *SIZES, *NUMBERS.values()}
    words |= set(
        ["a", "an", "and", "on", "background", "add", "remove", "replace", "with", "make", "change", "the", "to"]
    )
    return sorted(words)
