"""Safetensors files: read with errors that name the file, written atomically."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import InputError
from ..files import atomic


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


def write_safetensors(path: str | Path, tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a file atomically, with the permissions of the process's umask; OSError if that fails."""
    from safetensors.torch import save_file

    with atomic(path) as temporary:
        # The library's own temporary file has a name that tells nobody whose it is: it gets a folder of ours.
        folder = temporary.with_suffix(".d.part")
        folder.mkdir()
        try:
            save_file(tensors, folder / "weights", dict(metadata))
            os.replace(folder / "weights", temporary)
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code) if number else str(error), str(path)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def finite(tensor: Tensor) -> bool:
    """Whether the tensor holds only finite floating-point numbers."""
    return tensor.is_floating_point() and bool(torch.isfinite(tensor.float()).all())


def listed(names: Iterable[str], limit: int = 3) -> str:
    """The first few names and how many more there are, for an error message."""
    names = sorted(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
