"""The folder of one evaluation: its settings, which may not change, and files written as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_bytes
from ..outside import read_json
from ..shapes import locate
from ..weights.lora_io import weights_file
from .layouts import BenchmarkPrompt, Files


class EvalFolder:
    """settings: everything that determines the images, as JSON values; stored in `eval.json`."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings))
        self._file = path / "eval.json"

    def check(self) -> None:
        """InputError if the folder has other settings, or other contents than an evaluation; writes nothing."""
        if not self._file.exists():
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise InputError(f"{self.path} holds something else than an evaluation: choose another folder")
            return
        try:
            old = dict(read_json(self._file, "the settings"))
        except (ValueError, TypeError) as error:
            raise InputError(f"{self._file} cannot be read ({error}): choose another folder") from error
        names = [name for name in {**old, **self.settings} if old.get(name) != self.settings.get(name)]
        if names:
            differences = ", ".join(f"{name} {old.get(name)} and not {self.settings.get(name)}" for name in names)
            raise InputError(f"{self.path} was made with {differences}: give the same, or choose another folder")

    def begin(self) -> None:
        """Writes the settings; before any other file."""
        self.check()
        write_bytes(self._file, f"{json.dumps(self.settings, indent=1)}\n".encode())

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def finished(self, files: Files) -> bool:
        return all(map(self.has, (*files.pictures, *files.sidecars)))

    def keep(self, name: str, content: Callable[[], bytes]) -> bool:
        """Writes a file as a whole unless it exists; returns whether it did."""
        if self.has(name):
            return False
        write_bytes(self.path / name, content())
        return True


def prompts_digest(prompts: Iterable[BenchmarkPrompt]) -> str:
    """A digest of the prompts in their order; of source images, only their keys are included."""
    content = [(p.number, p.prompt, p.metadata, p.task, p.language, p.key) for p in prompts]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def lora_digest(name: str | None) -> str | None:
    """A digest of the LoRA file and, for one of peft, of the settings beside it."""
    if name is None:
        return None
    file = weights_file(locate(name))
    parts = (file, file.with_name("adapter_config.json"))
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts if part.is_file())).hexdigest()[:16]
