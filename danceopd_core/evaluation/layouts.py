"""The files that the official scorers read for a prompt, images and others: one function per benchmark."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..errors import InputError

Source = Callable[[], np.ndarray]
"""Opens an image on demand: RGB uint8 (H, W, 3) at its own size."""
FORBIDDEN = frozenset('/\\:*?"<>|')
"""Characters that some system forbids in file names; the first two would leave the folder."""


class BenchmarkPrompt(NamedTuple):
    """A prompt of a benchmark; fields that only one layout reads are optional."""

    number: int
    """Position in the prompt file, from 0; determines the noise together with the seed."""
    prompt: str
    place: str = ""
    """Where the prompt is, for error messages."""
    metadata: str = ""
    """GenEval: its line of the prompt file."""
    task: str = ""
    """GenEval's tag, GEdit-Bench's task_type."""
    language: str = "en"
    key: str = ""
    source: Source | None = None
    """The image that the model edits."""
    reference: Source | None = None
    """GEdit-Bench: the image with which the scorer compares the edit."""
    size: tuple[int, int] | None = None
    """(width, height) of the source."""


class Files(NamedTuple):
    """Paths below the evaluation's folder, with forward slashes."""

    pictures: tuple[str, ...]
    """One per sample."""
    sidecars: Mapping[str, Callable[[], bytes]]
    """Other files that the scorer reads -> their contents."""


Layout = Callable[[BenchmarkPrompt, int], Files]
"""The files of a prompt with a number of samples."""


def geneval(prompt: BenchmarkPrompt, samples: int) -> Files:
    """After djghosh13/geneval: 00012/metadata.jsonl and 00012/samples/00000.png for the prompt number 12."""
    folder = f"{prompt.number:05d}"
    pictures = tuple(f"{folder}/samples/{sample:05d}.png" for sample in range(samples))
    return Files(pictures, {f"{folder}/metadata.jsonl": lambda: f"{prompt.metadata}\n".encode()})


def gedit(prompt: BenchmarkPrompt, samples: int) -> Files:
    """After stepfun-ai/Step1X-Edit: fullset/TASK/LANGUAGE/KEY.png with KEY_SRCIMG.png, which the scorer requires.

    The benchmark has one sample per key; further samples are KEY_1, KEY_2, ...
    """
    stems = [f"fullset/{prompt.task}/{prompt.language}/{prompt.key}" + (f"_{n}" if n else "") for n in range(samples)]
    return Files(
        tuple(f"{stem}.png" for stem in stems),
        {f"{stem}_SRCIMG.png": lambda: as_png(_reference(prompt)) for stem in stems},
    )


def _reference(prompt: BenchmarkPrompt) -> np.ndarray:
    source = prompt.reference or prompt.source
    if source is None:
        raise InputError(f"{prompt.place or prompt.prompt!r} has no source picture: GEdit-Bench requires one")
    return source()


LAYOUTS: dict[str, Layout] = {"geneval": geneval, "gedit": gedit}


def as_png(picture: np.ndarray) -> bytes:
    """RGB uint8 (H, W, 3) as the bytes of a PNG file."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    return data.getvalue()


def name_fault(name: object) -> str:
    """Why a text cannot be the name of a file or folder on every system; empty if it can."""
    if not isinstance(name, str) or not name:
        return "is missing or no text"
    if FORBIDDEN & set(name) or not name.isprintable():
        return f"{name!r} holds a letter that no file name may have"
    if name.startswith((".", " ")) or name.endswith((".", " ")):
        return f"{name!r} begins or ends with a dot or a space"
    return f"{name!r} is longer than 150 bytes" if len(name.encode("utf-8", "replace")) > 150 else ""


def path_collisions(prompts: Iterable[BenchmarkPrompt], layout: Layout, samples: int) -> Iterator[str]:
    """One line for each prompt with the same files as an earlier one, also on systems that ignore case."""
    seen: dict[str, str] = {}
    for prompt in prompts:
        files = layout(prompt, samples)
        paths = [path.casefold() for path in (*files.pictures, *files.sidecars)]
        taken = next((path for path in paths if path in seen), None)
        if taken is not None:
            where = f"{prompt.key!r} would be written to the files of {seen[taken]}"
            yield f"{prompt.place}: {where}: give each its own key"
        seen.update(dict.fromkeys(paths, prompt.place))


def select_prompts(
    prompts: Iterable[BenchmarkPrompt], tasks: Iterable[str], limit: int | None
) -> list[BenchmarkPrompt]:
    """The prompts of the tasks (all if empty), at most `limit`; InputError for an unknown task."""
    all_prompts = list(prompts)
    known = Counter(prompt.task for prompt in all_prompts)
    wanted = set(tasks)
    if unknown := sorted(wanted - known.keys()):
        raise InputError(f"no prompt is of {', '.join(unknown)}: there are {', '.join(known)}")
    return [prompt for prompt in all_prompts if not wanted or prompt.task in wanted][:limit]
