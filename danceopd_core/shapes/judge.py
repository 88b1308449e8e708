"""Reads a picture back into a scene without a neural network, and scores captions and edits.

Hue finds the shapes (backgrounds are achromatic), bounding-box-normalised overlap with the renderer's own outlines
names them, and the fall of brightness from upper left to lower right tells the shaded style from the flat one.
"""

from __future__ import annotations

import colorsys
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from .language import Caption, Edit
from .render import outline
from .scene import BACKGROUNDS, COLOURS, PLACES, RELATIONS, SHAPES, Thing, Wanted

GRID = 24
DETAIL = 3  # a picture is read at 3 x 64 points a side, whatever its size
CHROMA = 45  # of 255; a shaded purple has 65 in its darkest corner, a VAE's error on gray stays under 20
MIN_AREA = 0.006  # of the picture; the smallest shape that the renderer draws covers 0.025
MIN_OVERLAP = 0.66  # a small star, whose tips are finer than a pixel, has 0.83 as it is drawn and 0.69 out of the VAE
SIZE_LIMIT = 0.152
NEAR = 0.08  # how far, in picture sides, a thing may move and still be in its place
LIT = 0.12


class Seen(NamedTuple):
    """A thing as read from a picture. `overlap` is how surely it has its shape, `light` how it is lit (0: flat)."""

    thing: Thing
    overlap: float
    light: float


class Reading(NamedTuple):
    """A picture as read: its things (shape '?' where none fits), and the nearest background."""

    seen: tuple[Seen, ...]
    background: str

    @property
    def things(self) -> tuple[Thing, ...]:
        return tuple(s.thing for s in self.seen)


@lru_cache
def _templates() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each shape its mask stretched to the grid, and its extents (width, height) at radius 1."""
    found = {}
    for shape in SHAPES:
        points = outline(shape)
        low, span = points.min(0), np.ptp(points, axis=0)
        canvas = Image.new("L", (GRID * 8, GRID * 8))
        ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in (points - low) / span * GRID * 8], fill=255)
        found[shape] = np.asarray(canvas.resize((GRID, GRID), Image.Resampling.BOX), np.float32) / 255, span
    return found


@lru_cache
def _hues() -> np.ndarray:
    return np.array([colorsys.rgb_to_hsv(*(c / 255 for c in rgb))[0] for rgb in COLOURS.values()])


def _nearest_colour(pixels: np.ndarray) -> np.ndarray:
    """The number of the colour of nearest hue, for coloured pixels (n, 3)."""
    high, chroma = pixels.max(-1), np.ptp(pixels, axis=-1)
    r, g, b = pixels.T
    hue = np.where(high == r, (g - b) / chroma % 6, np.where(high == g, (b - r) / chroma + 2, (r - g) / chroma + 4)) / 6
    distance = np.abs(hue[:, None] - _hues())
    return np.minimum(distance, 1 - distance).argmin(-1)


def _see(part: np.ndarray, picture: np.ndarray, colour: str, size: int, corner: tuple[int, int]) -> Seen:
    """The thing that covers the pixels `part`, (h, w) bool, of a cut-out whose upper left corner is `corner`."""
    ys, xs = np.nonzero(part)
    top, bottom, left, right = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    crop = Image.fromarray((part[top:bottom, left:right] * 255).astype(np.uint8))
    mask = np.asarray(crop.resize((GRID, GRID), Image.Resampling.BILINEAR), np.float32) / 255
    height, width = bottom - top, right - left
    fits = {}
    for shape, (template, span) in _templates().items():
        overlap = np.minimum(mask, template).sum() / np.maximum(mask, template).sum()
        # The proportions are part of a shape: a squashed cross is none.
        stretch = (width / span[0]) / (height / span[1])
        fits[shape] = overlap * min(stretch, 1 / stretch) ** 0.5
    shape = max(fits, key=lambda s: fits[s])
    span = _templates()[shape][1]
    radius = (width / span[0] + height / span[1]) / 2 / size
    points = outline(shape)
    middle = (points.min(0) + points.max(0)) / 2 * radius
    x, y = (corner[1] + (left + right) / 2) / size - middle[0], (corner[0] + (top + bottom) / 2) / size - middle[1]
    value = picture[ys, xs].max(-1)
    diagonal = (xs - xs.mean()) + (ys - ys.mean())
    light = (value[diagonal < 0].mean() - value[diagonal > 0].mean()) / value.mean() if height * width > 4 else 0.0
    thing = Thing(shape if fits[shape] >= MIN_OVERLAP else "?", colour, float(x), float(y), float(radius))
    return Seen(thing, float(fits[shape]), float(light))


def read(picture: np.ndarray) -> Reading:
    """The scene in a picture, (size, size, 3) uint8."""
    from scipy import ndimage

    size = DETAIL * 64
    # Read at a finer grid than the pixels: the anti-aliased rim says where an edge lies within its pixel.
    fine = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)
    picture = ndimage.gaussian_filter(np.asarray(fine, np.float32), (DETAIL / 3, DETAIL / 3, 0))
    chroma = np.ptp(picture, axis=-1)
    coloured = chroma > CHROMA
    nearest = np.full(coloured.shape, -1)
    nearest[coloured] = _nearest_colour(picture[coloured])
    seen = []
    for number, colour in enumerate(COLOURS):
        mask = nearest == number
        if mask.sum() < MIN_AREA * mask.size:
            continue
        parts, _ = ndimage.label(mask, structure=np.ones((3, 3)))
        boxes, areas = ndimage.find_objects(parts), np.bincount(parts.ravel())
        for index in np.flatnonzero(areas >= MIN_AREA * mask.size):
            if index == 0:  # all that is not of this colour
                continue
            box = boxes[index - 1]
            part = parts[box] == index
            # Half the shape's own chroma is where the anti-aliased rim is half covered.
            core = part & (chroma[box] > 0.45 * np.median(chroma[box][part]))
            seen.append(_see(core, picture[box], colour, size, (box[0].start, box[1].start)))
    plain = picture[chroma < CHROMA / 2]
    level = float(np.median(plain)) if len(plain) else float(np.median(picture))
    background = min(BACKGROUNDS, key=lambda name: abs(BACKGROUNDS[name] - level))
    return Reading(tuple(seen), background)


def _meets(thing: Thing, want: Wanted) -> bool:
    return (
        want.shape in (None, thing.shape)
        and want.colour in (None, thing.colour)
        and (want.size is None or (thing.radius > SIZE_LIMIT) == (want.size == "big"))
        and (want.place is None or _placed(thing, want.place))
    )


def _placed(thing: Thing, place: str) -> bool:
    x0, x1, y0, y1 = PLACES[place]
    slack = 0.05
    return x0 - slack <= thing.x <= x1 + slack and y0 - slack <= thing.y <= y1 + slack


def _stands(first: Thing, second: Thing, relation: str) -> bool:
    towards = RELATIONS[relation]
    return (first.x - second.x) * towards[0] + (first.y - second.y) * towards[1] > 0.12


def score_caption(caption: Caption, picture: np.ndarray) -> float:
    """1.0 if the picture shows all that the caption asks for and no further thing, else 0.0."""
    reading = read(picture)
    things = list(reading.things)
    if len(things) != len(caption.wanted) or caption.background not in (None, reading.background):
        return 0.0
    found = []
    for want in caption.wanted:
        match = next((t for t in things if _meets(t, want)), None)
        if match is None:
            return 0.0
        things.remove(match)
        found.append(match)
    return float(caption.relation is None or _stands(found[0], found[1], caption.relation))


def _same(seen: Thing, thing: Thing, shape: bool = True) -> bool:
    near = np.hypot(seen.x - thing.x, seen.y - thing.y) < NEAR
    return bool(near and (not shape or (seen.shape == thing.shape and 0.75 < seen.radius / thing.radius < 1.33)))


def _take(pool: list[Seen], thing: Thing) -> Seen | None:
    match = next((s for s in pool if s.thing.colour == thing.colour and _same(s.thing, thing)), None)
    if match is not None:
        pool.remove(match)
    return match


def score_edit(edit: Edit, picture: np.ndarray) -> float:
    """sqrt(instruction success x preservation of the rest), in [0, 1] (GEdit's geometric mean of SC and PQ).

    Preserved is the share of the untouched things that are where and as they were, with the background and the
    style where the edit does not change them; each thing that nobody asked for counts as one more, not preserved.
    """
    reading = read(picture)
    pool = list(reading.seen)
    rest = [t for t in edit.source.things if t != edit.touched]
    kept = [_take(pool, thing) for thing in rest]
    done = _done(edit, reading, pool)
    checks = [match is not None for match in kept]
    if edit.category != "background":
        checks.append(reading.background == edit.source.background)
    if edit.category != "style":
        checks += [(m.light > LIT) == (edit.source.style == "shaded") for m in kept if m is not None]
    checks += [False] * len(pool)
    return float(np.sqrt(done * (np.mean(checks) if checks else 1.0)))


def _done(edit: Edit, reading: Reading, pool: list[Seen]) -> float:
    """How far the instruction was followed, in [0, 1]; takes what it asked for out of `pool`."""
    if edit.category == "background":
        return float(reading.background == edit.target.background)
    if edit.category == "style":
        lit = [(s.light > LIT) == (edit.target.style == "shaded") for s in reading.seen]
        return float(np.mean(lit)) if lit else 0.0
    if edit.category == "remove":
        assert edit.touched is not None
        return float(not any(_same(s.thing, edit.touched, shape=False) for s in pool))
    assert edit.wanted is not None
    match = next(
        (
            s
            for s in pool
            if _meets(s.thing, edit.wanted) and (edit.touched is None or _same(s.thing, edit.touched, shape=False))
        ),
        None,
    )
    if match is None:
        return 0.0
    pool.remove(match)
    return 1.0


def score_style(scene_style: str, picture: np.ndarray) -> float:
    """The share of the picture's things that are lit as that style lights them."""
    seen = read(picture).seen
    return float(np.mean([(s.light > LIT) == (scene_style == "shaded") for s in seen])) if seen else 0.0
