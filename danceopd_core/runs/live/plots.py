"""Pictures of results: contact sheets with captions, and the loss of every route over the updates."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...errors import encodable, shown

INK, PAPER, FAINT = (24, 26, 30), (255, 255, 255), (222, 224, 228)
ROUTES = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75))

MOST_CHARACTERS = 500
"""Of a prompt on a sheet."""


class SheetRow(NamedTuple):
    """A prompt and its pictures (H, W, 3) uint8, one a column; None leaves a cell empty."""

    prompt: str
    cells: Sequence[np.ndarray | None]


def contact_sheet(columns: Sequence[str], rows: Sequence[SheetRow], cell: int = 128, text: int = 190) -> Image.Image:
    """A table of pictures: the prompt on the left, one column a field; pictures are enlarged without blur."""
    gap, head = 8, 34
    font = ImageFont.load_default(14)
    bold = ImageFont.load_default(15)
    size = (text + len(columns) * (cell + gap) + gap, head + len(rows) * (cell + gap) + gap)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, name in enumerate(columns):
        draw.text((text + number * (cell + gap) + cell // 2, head // 2), name, INK, bold, anchor="mm")
    for line, row in enumerate(rows):
        top = head + line * (cell + gap)
        prompt = row.prompt[:MOST_CHARACTERS]
        words = textwrap.fill(prompt if encodable(prompt) else shown(prompt), max(8, text // 8))
        draw.multiline_text((gap, top + cell // 2), words, INK, font, anchor="lm", spacing=5)
        for number, picture in enumerate(row.cells):
            corner = (text + number * (cell + gap), top)
            if picture is None:
                centre = (corner[0] + cell // 2, top + cell // 2)
                draw.line((centre[0] - 8, centre[1], centre[0] + 8, centre[1]), FAINT, 2)
                continue
            image = Image.fromarray(picture)
            # Small pictures keep their pixels; larger ones are scaled down smoothly.
            resampling = Image.Resampling.NEAREST if image.width < cell else Image.Resampling.LANCZOS
            width, height = (max(1, round(side * cell / max(image.size))) for side in image.size)
            left, above = corner[0] + (cell - width) // 2, top + (cell - height) // 2
            sheet.paste(image.resize((width, height), resampling), (left, above))
            draw.rectangle((left, above, left + width - 1, above + height - 1), outline=FAINT)
    return sheet


def loss_plot(history: Sequence[dict[str, Any]], path: Path, title: str = "") -> None:
    """The loss of every route over the updates, with its running mean; `history` as the run folder keeps it."""
    fine = 2  # drawn larger and reduced, for smooth lines
    width, height = 960 * fine, 500 * fine
    left, right, top, bottom = 70 * fine, width - 20 * fine, 60 * fine, height - 50 * fine
    font, bold = ImageFont.load_default(14 * fine), ImageFont.load_default(16 * fine)
    figure = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(figure)
    draw.text((width // 2, top // 3), title, INK, bold, anchor="mm")
    draw.text(((left + right) // 2, height - 14 * fine), "update", INK, font, anchor="mm")
    draw.text((left, top - 8 * fine), "loss (velocity error to the teacher)", INK, font, anchor="ls")
    curves: dict[str, list[tuple[int, float]]] = {}
    for entry in history:
        for route, loss in entry["losses"].items():
            if loss > 0:  # the scale is of logarithms
                curves.setdefault(route, []).append((entry["update"], loss))
    if curves:
        updates, losses = (np.array(column) for column in zip(*(p for c in curves.values() for p in c), strict=True))
        low, high = np.log10(losses.min()) - 0.05, np.log10(losses.max()) + 0.05
        first, span = updates.min(), max(1, np.ptp(updates))

        def place(update: float, loss: float) -> tuple[float, float]:
            across, up = (update - first) / span, (np.log10(loss) - low) / (high - low)
            return left + across * (right - left), bottom - up * (bottom - top)

        for tick in (step * 10.0**power for power in range(int(low) - 2, int(high) + 2) for step in (1, 2, 5)):
            if low <= np.log10(tick) <= high:
                y = place(first, tick)[1]
                draw.line((left, y, right, y), FAINT, fine)
                draw.text((left - 6 * fine, y), f"{tick:g}", INK, font, anchor="rm")
        for update in sorted({round(first + span * part / 5) for part in range(6)}):
            draw.text((place(update, losses.max())[0], bottom + 8 * fine), str(update), INK, font, anchor="mt")
        for number, (route, points) in enumerate(sorted(curves.items())):
            colour = ROUTES[number % len(ROUTES)]
            pale = tuple((part + 2 * 255) // 3 for part in colour)
            for x, y in (place(*point) for point in points):
                draw.ellipse((x - 2 * fine, y - 2 * fine, x + 2 * fine, y + 2 * fine), pale)
            many = max(1, len(points) // 15)
            smooth = np.convolve([loss for _, loss in points], np.ones(many) / many, "valid")
            means = zip((update for update, _ in points[many - 1 :]), smooth, strict=True)
            draw.line([place(*point) for point in means], colour, 2 * fine, joint="curve")
            line = top + (12 + 20 * number) * fine
            draw.line((right - 30 * fine, line, right, line), colour, 2 * fine)
            draw.text((right - 36 * fine, line), route, INK, font, anchor="rm")
    draw.line((left, top, left, bottom, right, bottom), INK, fine)
    figure.reduce(fine).save(path)
