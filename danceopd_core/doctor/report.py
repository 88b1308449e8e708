"""The report of a LoRA as text, and its spectra as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ..weights.safetensors_io import listed
from .effect import Effect, effect_text
from .health import Health
from .lora_file import LoraFile
from .spectrum import LayerSpectrum

LISTED = 8
"""Layers in the table of the strongest."""
INK, PAPER, FAINT, LINE, ALARM = (24, 26, 30), (255, 255, 255), (222, 224, 228), (31, 119, 180), (214, 39, 40)


def report_text(
    file: LoraFile,
    health: Health,
    effects: Sequence[Effect] = (),
    all_layers: bool = False,
    stock: tuple[Sequence[str], int] | None = None,
) -> str:
    """Verdict, keys, effect, and a table of the strongest layers, or of all.

    stock: the keys that ComfyUI's Load LoRA would pass over on a model, and how many there are.
    """
    lines = [f"{file.path.name}: {health.verdict()}"]
    lines += [f"keys: {line}" for line in file.keys_text()]
    if stock is not None:
        lines.append(f"keys: {_stock_text(*stock)}")
    if effects:
        lines.append(f"effect: {effect_text(effects)}")
    ordered = sorted(health.layers, key=lambda layer: layer.top, reverse=True)
    shown = ordered if all_layers else ordered[:LISTED]
    title = "layers" if len(shown) == len(ordered) else f"the strongest {len(shown)} of {len(ordered)} layers"
    lines += ["", f"{title}, norm {health.norm:.4g} in all:", *_table(shown, health)]
    return "\n".join(lines)


def _stock_text(passed_over: Sequence[str], count: int) -> str:
    if not passed_over:
        return f"Load LoRA takes all {count} for this MODEL"
    if len(passed_over) == count:
        return f"Load LoRA takes none of the {count} for this MODEL, so nothing would change: it is of another model"
    return f"Load LoRA passes over {len(passed_over)} of {count} for this MODEL: {listed(passed_over)}"


def _table(layers: Sequence[LayerSpectrum], health: Health) -> list[str]:
    marks = dict.fromkeys(health.dead, "dead") | dict.fromkeys(health.spikes, "spike")
    marks |= dict.fromkeys(health.broken, "NaN")
    rows = [("norm", "largest", "its share", "directions", "layer")]
    rows += [
        (
            f"{layer.norm:.4g}",
            f"{layer.top:.4g}",
            f"{layer.share:.0%}",
            f"{layer.effective:.1f} of {layer.rank}",
            " ".join(filter(None, (layer.module, marks.get(layer.module, "")))),
        )
        for layer in layers
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    return ["  ".join([*map(str.rjust, row, widths), row[-1]]) for row in rows]


def spectrum_picture(health: Health, title: str) -> Image.Image:
    """One line a layer: its singular values, largest first, on a scale of logarithms; spikes in red."""
    width, height, left, right, top, bottom = 960, 500, 70, 20, 50, 50
    figure = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(figure), ImageFont.load_default(14)
    draw.text((width // 2, top // 2), title, INK, ImageFont.load_default(16), anchor="mm")
    draw.text((width // 2, height - 14), "direction, strongest first", INK, font, anchor="mm")
    alive = [layer for layer in health.layers if layer.top > 0]
    if alive:
        high = math.ceil(math.log10(max(layer.top for layer in alive)))
        low = min(high - 1, max(high - 8, math.floor(math.log10(min(_least(layer) for layer in alive)))))
        for power in range(low, high + 1):
            y = height - bottom - (power - low) / (high - low) * (height - top - bottom)
            draw.line((left, y, width - right, y), FAINT)
            draw.text((left - 6, y), f"1e{power}", INK, font, anchor="rm")
        across = (width - left - right) / max(1, health.rank - 1)
        for layer in sorted(alive, key=lambda layer: layer.module in health.spikes):
            spike = layer.module in health.spikes
            points = [
                (
                    left + across * number,
                    height - bottom - (max(math.log10(value), low) - low) / (high - low) * (height - top - bottom),
                )
                for number, value in enumerate(layer.values[: layer.used])
            ]
            colour = ALARM if spike else LINE
            if len(points) > 1:
                draw.line(points, colour, 2 if spike else 1)
            draw.ellipse((points[0][0] - 2, points[0][1] - 2, points[0][0] + 2, points[0][1] + 2), colour)
    draw.line((left, top, left, height - bottom, width - right, height - bottom), INK)
    return figure


def _least(layer: LayerSpectrum) -> float:
    return layer.values[layer.used - 1]
