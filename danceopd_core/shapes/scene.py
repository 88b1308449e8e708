"""Scenes of one to three shapes, and random scenes that match a description."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")
COLOURS = {
    "red": (222, 40, 40),
    "orange": (245, 135, 30),
    "yellow": (240, 215, 40),
    "green": (40, 170, 70),
    "cyan": (50, 195, 220),
    "blue": (45, 75, 220),
    "purple": (155, 55, 200),
}
# Achromatic, so that anti-aliased rims and shadows keep the hue of their shape and the judge needs no training.
BACKGROUNDS = {"white": 250, "silver": 190, "gray": 120, "black": 20}
STYLES = ("flat", "shaded")
SIZES = {"small": 0.125, "big": 0.18}
# Objects are centred in the quarters, so that a shape covers the same pixels of its patches at every place.
CENTRES = (0.25, 0.75)
PLACES = {  # ranges of the centre, as fractions of the image: x low, x high, y low, y high
    "on the left": (0.0, 0.4, 0.0, 1.0),
    "on the right": (0.6, 1.0, 0.0, 1.0),
    "at the top": (0.0, 1.0, 0.0, 0.4),
    "at the bottom": (0.0, 1.0, 0.6, 1.0),
    "at the top left": (0.0, 0.4, 0.0, 0.4),
    "at the top right": (0.6, 1.0, 0.0, 0.4),
    "at the bottom left": (0.0, 0.4, 0.6, 1.0),
    "at the bottom right": (0.6, 1.0, 0.6, 1.0),
}
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


class SceneObject(NamedTuple):
    """One shape: centre and radius are fractions of the image's side, y grows downwards."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """The content of an image: 0 to 3 objects on one background, in one style."""

    objects: tuple[SceneObject, ...]
    background: str
    style: str = "flat"

    def without(self, obj: SceneObject) -> Scene:
        return replace(self, objects=tuple(t for t in self.objects if t != obj))

    def swapped(self, old: SceneObject, new: SceneObject) -> Scene:
        return replace(self, objects=tuple(new if t == old else t for t in self.objects))


@dataclass(frozen=True)
class ObjectSpec:
    """The description of one object in a text; None: unspecified."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    place: str | None = None

    def phrase(self) -> str:
        return " ".join(word for word in (self.size, self.colour, self.shape) if word)


class NoFreePlace(RuntimeError):
    """The objects do not fit into the image without touching."""


def _pick(rng: np.random.Generator, table) -> str:
    names = tuple(table)
    return names[int(rng.integers(len(names)))]


def free_spot(
    rng: np.random.Generator, radius: float, others: tuple[SceneObject, ...], place: str | None = None
) -> tuple[float, float]:
    """A random free centre within the place for an object that touches no other; NoFreePlace if there is none."""
    x0, x1, y0, y1 = PLACES[place] if place else (0.0, 1.0, 0.0, 1.0)
    free = [
        (x, y)
        for x in CENTRES
        for y in CENTRES
        if x0 <= x <= x1
        and y0 <= y <= y1
        and all(np.hypot(x - o.x, y - o.y) > 1.12 * (radius + o.radius) + 0.02 for o in others)
    ]
    if not free:
        raise NoFreePlace
    return free[int(rng.integers(len(free)))]


def sample_radius(rng: np.random.Generator, size: str | None = None) -> float:
    """The radius of the size; None: of a random one."""
    return SIZES[size or _pick(rng, SIZES)]


def _related(first: SceneObject, second: SceneObject, relation: str) -> bool:
    dx, dy = first.x - second.x, first.y - second.y
    towards = RELATIONS[relation]
    along = dx * towards[0] + dy * towards[1]
    across = abs(dx * towards[1]) + abs(dy * towards[0])
    return along > 0.22 and along > across


def sample_scene(
    rng: np.random.Generator,
    specs: tuple[ObjectSpec, ...],
    background: str | None = None,
    relation: str | None = None,
    style: str = "flat",
    free_layout: bool = False,
) -> Scene:
    """A random scene that matches the description; unspecified attributes are random.

    relation: of the first object to the second; without one, objects are in reading order. Unless `free_layout`, two
    objects are side by side (or one straight above the other, if the relation says so), and three fill the upper row.
    """
    background = background or _pick(rng, BACKGROUNDS)
    while True:
        objects: tuple[SceneObject, ...] = ()
        try:
            for spec in specs:
                radius = sample_radius(rng, spec.size)
                x, y = free_spot(rng, radius, objects, spec.place)
                shape, colour = spec.shape or _pick(rng, SHAPES), spec.colour or _pick(rng, COLOURS)
                objects += (SceneObject(shape, colour, x, y, radius),)
        except NoFreePlace:
            continue
        named = [(t.y, t.x) for t in objects]
        fits = _related(objects[0], objects[1], relation) if relation else named == sorted(named)
        if fits and (free_layout or relation or len(objects) == 1 or objects[0].y == objects[1].y):
            return Scene(objects, background, style)
