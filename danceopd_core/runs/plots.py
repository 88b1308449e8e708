"""Pictures of results: contact sheets with captions, and the loss of every route over the updates."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, PAPER, FAINT = (24, 26, 30), (255, 255, 255), (222, 224, 228)


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
        words = textwrap.fill(row.prompt, max(8, text // 8))
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
            sheet.paste(image.resize((cell, cell), resampling), corner)
            draw.rectangle((*corner, corner[0] + cell - 1, top + cell - 1), outline=FAINT)
    return sheet


def loss_plot(history: Sequence[dict[str, Any]], path: Path, title: str = "") -> None:
    """The loss of every route over the updates, with its running mean; `history` as the run folder keeps it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.2), dpi=120, layout="constrained")
    routes = sorted({route for entry in history for route in entry["losses"]})
    for number, route in enumerate(routes):
        points = [(e["update"], e["losses"][route]) for e in history if route in e["losses"]]
        updates, losses = np.array([p[0] for p in points]), np.array([p[1] for p in points])
        width = max(1, len(losses) // 15)
        smooth = np.convolve(losses, np.ones(width) / width, "valid")
        axes.plot(updates, losses, ".", color=f"C{number}", alpha=0.3, markersize=4)
        axes.plot(updates[width - 1 :], smooth, color=f"C{number}", linewidth=2, label=route)
    axes.set(xlabel="update", ylabel="loss (velocity error to the teacher)", yscale="log", title=title)
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)
    pyplot.close(figure)
