"""Renders a scene: supersampled polygons; in the shaded style with a lit surface, a highlight and a soft shadow."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .scene import BACKGROUNDS, COLOURS, Scene, SceneObject

SUPERSAMPLING = 4
SHADOW_OFFSET = 0.30  # of the radius, towards the lower right: the light comes from the upper left
SHADOW_STRENGTH = 0.45


@lru_cache
def outline(shape: str) -> np.ndarray:
    """The polygon of a shape with radius 1 around the origin, (points, 2), y downwards."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    if shape == "circle":
        return np.stack([np.cos(turn), np.sin(turn)], 1) * 0.95
    if shape == "square":
        return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.85
    if shape == "triangle":
        return np.array([(0, -1), (0.98, 0.75), (-0.98, 0.75)]) * 1.05
    if shape == "diamond":
        return np.array([(0, -1), (0.8, 0), (0, 1), (-0.8, 0)]) * 1.1
    if shape == "star":
        angles = np.arange(10) * np.pi / 5 - np.pi / 2
        radii = np.where(np.arange(10) % 2 == 0, 1.15, 0.5)
        return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], 1)
    if shape == "cross":
        a, b = 1.0, 0.36
        return np.array(
            [(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b)]
        )
    raise KeyError(shape)


def _mask(obj: SceneObject, size: int, shift: float = 0.0) -> np.ndarray:
    """The coverage of each pixel by the object, (size, size) in [0, 1]; `shift` is in units of its radius."""
    big = size * SUPERSAMPLING
    points = (outline(obj.shape) + shift) * obj.radius + (obj.x, obj.y)
    canvas = Image.new("L", (big, big))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in points * big - 0.5], fill=255)
    return np.asarray(canvas.resize((size, size), Image.Resampling.BOX), np.float32) / 255


def _surface(obj: SceneObject, size: int) -> np.ndarray:
    """The lit surface of an object, (size, size, 3) in 0..255: a ramp along the light and a highlight."""
    centre = (np.arange(size, dtype=np.float32) + 0.5) / size
    dx, dy = (centre[None, :] - obj.x) / obj.radius, (centre[:, None] - obj.y) / obj.radius
    ramp = np.clip(0.78 - 0.24 * (dx + dy), 0.45, 1.1)[..., None]
    glow = (0.45 * np.exp(-((dx + 0.35) ** 2 + (dy + 0.35) ** 2) / 0.09))[..., None]
    lit = np.asarray(COLOURS[obj.colour], np.float32) * ramp
    return np.clip(lit + (255 - lit) * glow, 0, 255)


def render(scene: Scene, size: int = 64) -> np.ndarray:
    """The image of a scene, (size, size, 3) uint8."""
    image = np.full((size, size, 3), BACKGROUNDS[scene.background], np.float32)
    shaded = scene.style == "shaded"
    if shaded:
        for obj in scene.objects:
            shadow = Image.fromarray((_mask(obj, size, SHADOW_OFFSET) * 255).astype(np.uint8))
            soft = np.asarray(shadow.filter(ImageFilter.GaussianBlur(0.02 * size)), np.float32)[..., None] / 255
            image *= 1 - SHADOW_STRENGTH * soft
    for obj in scene.objects:
        mask = _mask(obj, size)[..., None]
        colour = _surface(obj, size) if shaded else np.asarray(COLOURS[obj.colour], np.float32)
        image = image * (1 - mask) + colour * mask
    return np.round(image).astype(np.uint8)
