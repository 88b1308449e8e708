"""Scenes of one to three flat shapes, and how to draw a random one that meets a description."""

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
# Achromatic, so that an anti-aliased rim or a shadow keeps the hue of its shape and the judge needs no learning.
BACKGROUNDS = {"white": 250, "silver": 190, "gray": 120, "black": 20}
STYLES = ("flat", "shaded")
SIZES = {"small": 0.125, "big": 0.18}
# Things stand in the middle of the quarters, so that a shape is the same patches of pixels wherever it stands.
CELLS = (0.25, 0.75)
PLACES = {  # ranges of the centre, as fractions of the picture: x low, x high, y low, y high
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


class Thing(NamedTuple):
    """One shape: its centre and radius are fractions of the picture's side, y grows downwards."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """What a picture shows: 0 to 3 things on one background, in one style."""

    things: tuple[Thing, ...]
    background: str
    style: str = "flat"

    def without(self, thing: Thing) -> Scene:
        return replace(self, things=tuple(t for t in self.things if t != thing))

    def swapped(self, old: Thing, new: Thing) -> Scene:
        return replace(self, things=tuple(new if t == old else t for t in self.things))


@dataclass(frozen=True)
class Wanted:
    """One thing as a text describes it; None leaves the matter open."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    place: str | None = None

    def phrase(self) -> str:
        return " ".join(word for word in (self.size, self.colour, self.shape) if word)


class NoRoom(RuntimeError):
    """The things asked for do not fit into the picture without touching."""


def _pick(rng: np.random.Generator, table) -> str:
    names = tuple(table)
    return names[int(rng.integers(len(names)))]


def free_spot(
    rng: np.random.Generator, radius: float, others: tuple[Thing, ...], place: str | None = None
) -> tuple[float, float]:
    """The centre, in a quarter of the place that is free, of a thing that touches no other; NoRoom if there is none."""
    x0, x1, y0, y1 = PLACES[place] if place else (0.0, 1.0, 0.0, 1.0)
    free = [
        (x, y)
        for x in CELLS
        for y in CELLS
        if x0 <= x <= x1
        and y0 <= y <= y1
        and all(np.hypot(x - o.x, y - o.y) > 1.12 * (radius + o.radius) + 0.02 for o in others)
    ]
    if not free:
        raise NoRoom
    return free[int(rng.integers(len(free)))]


def sample_radius(rng: np.random.Generator, size: str | None = None) -> float:
    """The radius of that size, or of either."""
    return SIZES[size or _pick(rng, SIZES)]


def _related(first: Thing, second: Thing, relation: str) -> bool:
    dx, dy = first.x - second.x, first.y - second.y
    towards = RELATIONS[relation]
    along = dx * towards[0] + dy * towards[1]
    across = abs(dx * towards[1]) + abs(dy * towards[0])
    return along > 0.22 and along > across


def sample_scene(
    rng: np.random.Generator,
    wanted: tuple[Wanted, ...],
    background: str | None = None,
    relation: str | None = None,
    style: str = "flat",
    loose: bool = False,
) -> Scene:
    """A random scene that meets the description; whatever it leaves open is drawn.

    `relation` is first to second; without one, things stand in reading order. Unless `loose`, two of them stand
    side by side (or one straight above the other, if so asked), and three fill the upper row.
    """
    background = background or _pick(rng, BACKGROUNDS)
    while True:
        things: tuple[Thing, ...] = ()
        try:
            for want in wanted:
                radius = sample_radius(rng, want.size)
                x, y = free_spot(rng, radius, things, want.place)
                shape, colour = want.shape or _pick(rng, SHAPES), want.colour or _pick(rng, COLOURS)
                things += (Thing(shape, colour, x, y, radius),)
        except NoRoom:
            continue
        named = [(t.y, t.x) for t in things]
        fits = _related(things[0], things[1], relation) if relation else named == sorted(named)
        if fits and (loose or relation or len(things) == 1 or things[0].y == things[1].y):
            return Scene(things, background, style)
