"""The judge: detects the objects of an image without a neural network, and scores images of captions and edits.

Objects are segmented by hue (backgrounds are achromatic) and classified by their overlap with the renderer's outlines,
normalised to the bounding box. A brightness gradient from upper left to lower right identifies the shaded style.
"""

from __future__ import annotations

import colorsys
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from .language import Caption, Edit
from .render import outline
from .scene import BACKGROUNDS, COLOURS, PLACES, RELATIONS, SHAPES, ObjectSpec, SceneObject

GRID = 24
DETAIL = 3  # images of every size are analysed at 3 x 64 points a side
CHROMA = 45  # of 255; shaded purple has 65 in its darkest corner, the VAE's error on gray stays under 20
MIN_AREA = 0.006  # of the image; the smallest rendered shape covers 0.025
MIN_OVERLAP = 0.66  # a small star, with tips finer than a pixel, has 0.83 as rendered and 0.69 after the VAE
SIZE_LIMIT = 0.152
NEAR = 0.08  # in image sides: the largest offset of an object that counts as unmoved
LIT = 0.12


class DetectedObject(NamedTuple):
    """An object found in an image. overlap: of its mask with its shape, in [0, 1]. light: its gradient, 0 if flat."""

    obj: SceneObject
    overlap: float
    light: float


class DetectedScene(NamedTuple):
    """The objects of an image (shape '?' if none fits), and the nearest background."""

    detected: tuple[DetectedObject, ...]
    background: str

    @property
    def objects(self) -> tuple[SceneObject, ...]:
        return tuple(s.obj for s in self.detected)


@lru_cache
def _templates() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Shape -> its mask stretched to the grid, and its extents (width, height) at radius 1."""
    templates = {}
    for shape in SHAPES:
        points = outline(shape)
        low, span = points.min(0), np.ptp(points, axis=0)
        canvas = Image.new("L", (GRID * 8, GRID * 8))
        ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in (points - low) / span * GRID * 8], fill=255)
        templates[shape] = np.asarray(canvas.resize((GRID, GRID), Image.Resampling.BOX), np.float32) / 255, span
    return templates


@lru_cache
def _hues() -> np.ndarray:
    return np.array([colorsys.rgb_to_hsv(*(c / 255 for c in rgb))[0] for rgb in COLOURS.values()])


def _nearest_colour(pixels: np.ndarray) -> np.ndarray:
    """The index of the colour of nearest hue, for chromatic pixels (n, 3)."""
    high, chroma = pixels.max(-1), np.ptp(pixels, axis=-1)
    r, g, b = pixels.T
    hue = np.where(high == r, (g - b) / chroma % 6, np.where(high == g, (b - r) / chroma + 2, (r - g) / chroma + 4)) / 6
    distance = np.abs(hue[:, None] - _hues())
    return np.minimum(distance, 1 - distance).argmin(-1)


def _detect(part: np.ndarray, image: np.ndarray, colour: str, size: int, corner: tuple[int, int]) -> DetectedObject:
    """The object that covers the pixels `part`, (h, w) bool, of a crop whose upper left corner is `corner`."""
    ys, xs = np.nonzero(part)
    top, bottom, left, right = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    crop = Image.fromarray((part[top:bottom, left:right] * 255).astype(np.uint8))
    mask = np.asarray(crop.resize((GRID, GRID), Image.Resampling.BILINEAR), np.float32) / 255
    height, width = bottom - top, right - left
    fits = {}
    for shape, (template, span) in _templates().items():
        overlap = np.minimum(mask, template).sum() / np.maximum(mask, template).sum()
        # The aspect ratio is part of a shape: a squashed cross is not a cross.
        stretch = (width / span[0]) / (height / span[1])
        fits[shape] = overlap * min(stretch, 1 / stretch) ** 0.5
    shape = max(fits, key=lambda s: fits[s])
    span = _templates()[shape][1]
    radius = (width / span[0] + height / span[1]) / 2 / size
    points = outline(shape)
    middle = (points.min(0) + points.max(0)) / 2 * radius
    x, y = (corner[1] + (left + right) / 2) / size - middle[0], (corner[0] + (top + bottom) / 2) / size - middle[1]
    value = image[ys, xs].max(-1)
    diagonal = (xs - xs.mean()) + (ys - ys.mean())
    light = (value[diagonal < 0].mean() - value[diagonal > 0].mean()) / value.mean() if height * width > 4 else 0.0
    obj = SceneObject(shape if fits[shape] >= MIN_OVERLAP else "?", colour, float(x), float(y), float(radius))
    return DetectedObject(obj, float(fits[shape]), float(light))


def detect(image: np.ndarray) -> DetectedScene:
    """The scene in an image, (size, size, 3) uint8."""
    from scipy import ndimage

    size = DETAIL * 64
    # A finer grid than the pixels: the anti-aliased rim gives the place of an edge within its pixel.
    fine = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    image = ndimage.gaussian_filter(np.asarray(fine, np.float32), (DETAIL / 3, DETAIL / 3, 0))
    chroma = np.ptp(image, axis=-1)
    coloured = chroma > CHROMA
    nearest = np.full(coloured.shape, -1)
    nearest[coloured] = _nearest_colour(image[coloured])
    detected = []
    for number, colour in enumerate(COLOURS):
        mask = nearest == number
        if mask.sum() < MIN_AREA * mask.size:
            continue
        parts, _ = ndimage.label(mask, structure=np.ones((3, 3)))
        boxes, areas = ndimage.find_objects(parts), np.bincount(parts.ravel())
        for index in np.flatnonzero(areas >= MIN_AREA * mask.size):
            if index == 0:  # pixels of other colours
                continue
            box = boxes[index - 1]
            part = parts[box] == index
            # The anti-aliased rim is half covered where it has half the shape's own chroma.
            core = part & (chroma[box] > 0.45 * np.median(chroma[box][part]))
            detected.append(_detect(core, image[box], colour, size, (box[0].start, box[1].start)))
    plain = image[chroma < CHROMA / 2]
    level = float(np.median(plain)) if len(plain) else float(np.median(image))
    background = min(BACKGROUNDS, key=lambda name: abs(BACKGROUNDS[name] - level))
    return DetectedScene(tuple(detected), background)


def _matches_spec(obj: SceneObject, spec: ObjectSpec) -> bool:
    return (
        spec.shape in (None, obj.shape)
        and spec.colour in (None, obj.colour)
        and (spec.size is None or (obj.radius > SIZE_LIMIT) == (spec.size == "big"))
        and (spec.place is None or _is_at(obj, spec.place))
    )


def _is_at(obj: SceneObject, place: str) -> bool:
    x0, x1, y0, y1 = PLACES[place]
    slack = 0.05
    return x0 - slack <= obj.x <= x1 + slack and y0 - slack <= obj.y <= y1 + slack


def _satisfies(first: SceneObject, second: SceneObject, relation: str) -> bool:
    towards = RELATIONS[relation]
    return (first.x - second.x) * towards[0] + (first.y - second.y) * towards[1] > 0.12


def score_caption(caption: Caption, image: np.ndarray) -> float:
    """1.0 if the image shows exactly the objects of the caption, else 0.0."""
    scene = detect(image)
    objects = list(scene.objects)
    if len(objects) != len(caption.specs) or caption.background not in (None, scene.background):
        return 0.0
    matches = []
    for spec in caption.specs:
        match = next((t for t in objects if _matches_spec(t, spec)), None)
        if match is None:
            return 0.0
        objects.remove(match)
        matches.append(match)
    return float(caption.relation is None or _satisfies(matches[0], matches[1], caption.relation))


def _same(detected: SceneObject, obj: SceneObject, shape: bool = True) -> bool:
    near = np.hypot(detected.x - obj.x, detected.y - obj.y) < NEAR
    return bool(near and (not shape or (detected.shape == obj.shape and 0.75 < detected.radius / obj.radius < 1.33)))


def _take(remaining: list[DetectedObject], obj: SceneObject) -> DetectedObject | None:
    match = next((s for s in remaining if s.obj.colour == obj.colour and _same(s.obj, obj)), None)
    if match is not None:
        remaining.remove(match)
    return match


def score_edit(edit: Edit, image: np.ndarray) -> float:
    """sqrt(instruction success x preservation of the rest), in [0, 1] (GEdit's geometric mean of SC and PQ).

    Preservation is the fraction of passed checks: every other object unchanged, the background and the style unless
    they are edited, and one failed check for every additional object.
    """
    scene = detect(image)
    remaining = list(scene.detected)
    rest = [t for t in edit.source.objects if t != edit.edited]
    kept = [_take(remaining, obj) for obj in rest]
    success = _success(edit, scene, remaining)
    checks = [match is not None for match in kept]
    if edit.category != "background":
        checks.append(scene.background == edit.source.background)
    if edit.category != "style":
        checks += [(m.light > LIT) == (edit.source.style == "shaded") for m in kept if m is not None]
    checks += [False] * len(remaining)
    return float(np.sqrt(success * (np.mean(checks) if checks else 1.0)))


def _success(edit: Edit, scene: DetectedScene, remaining: list[DetectedObject]) -> float:
    """The success of the instruction, in [0, 1]; removes the objects that it added or changed from `remaining`."""
    if edit.category == "background":
        return float(scene.background == edit.target.background)
    if edit.category == "style":
        lit = [(s.light > LIT) == (edit.target.style == "shaded") for s in scene.detected]
        return float(np.mean(lit)) if lit else 0.0
    if edit.category == "remove":
        assert edit.edited is not None
        return float(not any(_same(s.obj, edit.edited, shape=False) for s in remaining))
    assert edit.spec is not None
    match = next(
        (
            s
            for s in remaining
            if _matches_spec(s.obj, edit.spec) and (edit.edited is None or _same(s.obj, edit.edited, shape=False))
        ),
        None,
    )
    if match is None:
        return 0.0
    remaining.remove(match)
    return 1.0


def score_style(scene_style: str, image: np.ndarray) -> float:
    """The fraction of the image's objects that are rendered in the style."""
    detected = detect(image).detected
    return float(np.mean([(s.light > LIT) == (scene_style == "shaded") for s in detected])) if detected else 0.0
