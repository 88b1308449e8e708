"""Reading safetensors files, with errors that name the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import InputError, shown

LONGEST_NAME = 160
"""Of a name in an error message; longer ones are cut."""


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """Opens a safetensors file for reading; InputError, naming the file, if it is absent or unreadable."""
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file")
    try:
        with safe_open(path, framework="pt") as handle:
            yield handle
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}): it may be truncated or of another format; "
            "download it again, or save it as safetensors"
        ) from error


def finite(tensor: Tensor) -> bool:
    """Whether the tensor holds only finite floating-point numbers."""
    return tensor.is_floating_point() and bool(torch.isfinite(tensor.float()).all())


def listed(names: Iterable[str], limit: int = 3) -> str:
    """The first few names and how many more there are, for an error message."""
    names = sorted(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(shown(name, LONGEST_NAME) for name in names[:limit]) + more
