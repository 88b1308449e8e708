"""Where the official scorers look for the pictures of a prompt, and for what else: one function a benchmark."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..errors import InputError

Source = Callable[[], np.ndarray]
"""A picture that is opened when it is wanted: RGB uint8 (H, W, 3) at its own size."""
FORBIDDEN = frozenset('/\\:*?"<>|')
"""What no file's name may hold on some system; the first two would leave the folder."""


class BenchmarkPrompt(NamedTuple):
    """A prompt of a benchmark. What only one layout reads may be left out for the others."""

    number: int
    """Its place in the prompt file, counted from 0: with the seed it decides the noise."""
    prompt: str
    place: str = ""
    """Where it stands, for messages."""
    metadata: str = ""
    """GenEval: its line of the prompt file."""
    task: str = ""
    """GenEval's tag, GEdit-Bench's task_type."""
    language: str = "en"
    key: str = ""
    source: Source | None = None
    """What the model edits."""
    shown: Source | None = None
    """GEdit-Bench: what the scorer compares the edit with."""
    size: tuple[int, int] | None = None
    """(width, height) of the source."""


class Files(NamedTuple):
    """Paths below the evaluation's folder, with forward slashes."""

    pictures: tuple[str, ...]
    """One a sample."""
    beside: Mapping[str, Callable[[], bytes]]
    """What else the scorer reads, and its contents."""


Layout = Callable[[BenchmarkPrompt, int], Files]
"""The files of a prompt with so many samples."""


def geneval(asked: BenchmarkPrompt, samples: int) -> Files:
    """After djghosh13/geneval: 00012/metadata.jsonl and 00012/samples/00000.png for the prompt number 12."""
    folder = f"{asked.number:05d}"
    pictures = tuple(f"{folder}/samples/{sample:05d}.png" for sample in range(samples))
    return Files(pictures, {f"{folder}/metadata.jsonl": lambda: f"{asked.metadata}\n".encode()})


def gedit(asked: BenchmarkPrompt, samples: int) -> Files:
    """After stepfun-ai/Step1X-Edit: fullset/TASK/LANGUAGE/KEY.png with KEY_SRCIMG.png, without which it is skipped.

    The benchmark has one sample a key; more of them are KEY_1, KEY_2, ...
    """
    stems = [f"fullset/{asked.task}/{asked.language}/{asked.key}" + (f"_{n}" if n else "") for n in range(samples)]
    return Files(
        tuple(f"{stem}.png" for stem in stems), {f"{stem}_SRCIMG.png": lambda: as_png(_shown(asked)) for stem in stems}
    )


def _shown(asked: BenchmarkPrompt) -> np.ndarray:
    opened = asked.shown or asked.source
    if opened is None:
        raise InputError(f"{asked.place or asked.prompt!r} has no source picture, and GEdit-Bench is of edits")
    return opened()


LAYOUTS: dict[str, Layout] = {"geneval": geneval, "gedit": gedit}


def as_png(picture: np.ndarray) -> bytes:
    """RGB uint8 (H, W, 3) as the bytes of a PNG file."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    return data.getvalue()


def name_fault(name: object) -> str:
    """Why a text cannot name one file or folder on every system; empty if it can."""
    if not isinstance(name, str) or not name:
        return "is missing or no text"
    if FORBIDDEN & set(name) or not name.isprintable():
        return f"{name!r} holds a letter that no file name may have"
    if name.startswith((".", " ")) or name.endswith((".", " ")):
        return f"{name!r} begins or ends with a dot or a space"
    return f"{name!r} is longer than 150 bytes" if len(name.encode("utf-8", "replace")) > 150 else ""


def path_collisions(asked: Iterable[BenchmarkPrompt], layout: Layout, samples: int) -> Iterator[str]:
    """A line for each prompt whose files would be those of an earlier one, on systems that ignore case too."""
    seen: dict[str, str] = {}
    for one in asked:
        files = layout(one, samples)
        paths = [path.casefold() for path in (*files.pictures, *files.beside)]
        taken = next((path for path in paths if path in seen), None)
        if taken is not None:
            yield f"{one.place}: {one.key!r} would be written to the files of {seen[taken]}: give each its own key"
        seen.update(dict.fromkeys(paths, one.place))


def select_prompts(asked: Iterable[BenchmarkPrompt], tasks: Iterable[str], limit: int | None) -> list[BenchmarkPrompt]:
    """The prompts of these tasks, all if there are none, and no more than `limit`; InputError for an unknown task."""
    found = list(asked)
    known = Counter(one.task for one in found)
    wanted = set(tasks)
    if unknown := sorted(wanted - known.keys()):
        raise InputError(f"no prompt is of {', '.join(unknown)}: there are {', '.join(known)}")
    return [one for one in found if not wanted or one.task in wanted][:limit]
