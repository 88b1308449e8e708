"""The picture of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..data.csv_rows import Item
from ..data.images import open_picture
from .plots import SheetRow, contact_sheet


def sheet(items: Sequence[Item], shots: Mapping[str, torch.Tensor], width: int, height: int) -> torch.Tensor:
    """(1, H, W, 3): a row a prompt, a column a field, with the sources first where there are any."""
    columns = list(shots)
    cells = {name: (made * 255).round().to(torch.uint8).numpy() for name, made in shots.items()}
    edits = any(item.source is not None for item in items)
    rows = []
    for number, item in enumerate(items):
        source = None if item.source is None else open_picture(item.source, width, height)
        rows.append(SheetRow(item.prompt, [*([source] if edits else []), *(cells[name][number] for name in columns)]))
    made = contact_sheet([*(["source"] if edits else []), *columns], rows, cell=max(128, min(384, width)))
    return torch.from_numpy(np.array(made)).float()[None] / 255
