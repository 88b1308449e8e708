"""Safetensors files and their indices: read with errors that name the file, written atomically."""

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

from ..errors import InputError, shown
from ..files import atomic
from ..outside import MIB, read_head, read_json

HEADER_LIMIT = 32 * MIB
"""Of a file's header: names and shapes of some 10,000 weights take one MiB, kohya's metadata a few."""
TENSOR_LIMIT = 200_000
NO_MEMORY = re.compile(r"unable to mmap.*\(12\)|Cannot allocate memory|os error (12|1455)\b|paging file", re.DOTALL)
LONGEST_NAME = 160
"""Of a name in an error message; longer ones are cut."""


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """Opens a safetensors file for reading; InputError, naming the file, if it is absent or unreadable.

    The header's size is compared with the file's before anything else is read.
    """
    with checked_safetensors(path) as handle:
        try:
            yield handle
        except (SafetensorError, OSError) as error:
            raise unreadable(path, str(error)) from error


@contextmanager
def open_header(path: Path) -> Iterator[Any]:
    """As `open_safetensors`, for names, shapes and metadata only: it takes no memory, however large the weights are."""
    # For torch the library maps the whole file as writable memory, which a system may refuse for one of 40 GB.
    yield checked_safetensors(path, "np")


def checked_safetensors(path: Path, framework: str = "pt") -> Any:
    """As `open_safetensors`, for one that holds the file open; it is closed with the last reference to it."""
    if not os.path.isfile(path):
        raise InputError(f"{path} does not exist or is not a file")
    size = _check_header(path)
    try:
        handle = safe_open(path, framework=framework)
        count = len(handle.keys())
    except (SafetensorError, OSError, RuntimeError) as error:  # RuntimeError: of torch, as it maps the file
        if NO_MEMORY.search(str(error)):
            raise InputError(
                f"{path} cannot be opened: the system has no memory left to map its {size / 2**30:.1f} GiB. Close "
                "other programs, or allow more virtual memory (swap; on Windows the paging file)"
            ) from error
        raise unreadable(path, str(error)) from error
    if count > TENSOR_LIMIT:
        raise InputError(f"{path} names more than {TENSOR_LIMIT} tensors, the most that is read of a file")
    return handle


def _check_header(path: Path) -> int:
    """The file's size; InputError for a header that it cannot have."""
    head, size = read_head(path, "the file", 9)
    length = int.from_bytes(head[:8], "little")
    if len(head) < 9 or length > size - 8 or head[8:] != b"{":
        raise unreadable(path, "its header is not whole")
    if length > HEADER_LIMIT:
        raise unreadable(path, f"its header has more than {HEADER_LIMIT // MIB} MiB")
    return size


def unreadable(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} is not a readable safetensors file ({reason}): it may be truncated or of another format; "
        "download it again, or save it as safetensors"
    )


def shards(index: Path) -> list[Path]:
    """The files of sharded weights by their index, each beside it; InputError if it is no such index."""
    content = read_json(index, "the index")
    found = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found or not all(_is_plain(name) for name in found.values()):
        raise InputError(
            f"{index} is no index of shards: its weight_map has to name safetensors files beside it; download it again"
        )
    return [index.parent / name for name in sorted(set(found.values()))]


def _is_plain(name: Any) -> bool:
    """Whether it is the name of a file, and no path to elsewhere."""
    plain = isinstance(name, str) and name.endswith(".safetensors") and len(name) < 256
    return plain and os.path.basename(name) == name and not set(name) & set("\\/:\0") and name.isprintable()


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
    """Whether the tensor holds only finite floating-point numbers; not so for packed ones of half a byte."""
    try:
        return tensor.is_floating_point() and bool(torch.isfinite(tensor.float()).all())
    except NotImplementedError:
        return False


def same_tensor(one: Tensor, other: Tensor) -> bool:
    """Whether both are of one type and shape, and the same bit for bit."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def listed(names: Iterable[str], limit: int = 3) -> str:
    """The first few names and how many more there are, for an error message."""
    names = sorted(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(shown(name, LONGEST_NAME) for name in names[:limit]) + more
