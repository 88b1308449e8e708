"""The folder of one evaluation: settings that may not change, and files that are whole or not there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_bytes
from ..shapes import locate
from ..weights.lora_io import weights_file
from .layouts import BenchmarkPrompt, Files


class EvalFolder:
    """`settings`: all that decides the pictures, as JSON has it; `eval.json` keeps them."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings))
        self._file = path / "eval.json"

    def check(self) -> None:
        """InputError if the folder was made with other settings, or holds what was not made here; writes nothing."""
        if not self._file.exists():
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise InputError(f"{self.path} holds something else than an evaluation: choose another folder")
            return
        try:
            old = dict(json.loads(self._file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{self._file} cannot be read ({error}): choose another folder") from error
        names = [name for name in {**old, **self.settings} if old.get(name) != self.settings.get(name)]
        if names:
            told = ", ".join(f"{name} {old.get(name)} and not {self.settings.get(name)}" for name in names)
            raise InputError(f"{self.path} was made with {told}: give the same, or choose another folder")

    def begin(self) -> None:
        """Writes the settings, before anything else."""
        self.check()
        write_bytes(self._file, f"{json.dumps(self.settings, indent=1)}\n".encode())

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def finished(self, files: Files) -> bool:
        return all(map(self.has, (*files.pictures, *files.beside)))

    def keep(self, name: str, make: Callable[[], bytes]) -> bool:
        """Writes a file, whole at once, unless there is one; whether it did."""
        if self.has(name):
            return False
        write_bytes(self.path / name, make())
        return True


def prompts_digest(asked: Iterable[BenchmarkPrompt]) -> str:
    """The same for the same prompts in the same order; pictures count by their keys only."""
    told = [(one.number, one.prompt, one.metadata, one.task, one.language, one.key) for one in asked]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def lora_digest(name: str | None) -> str | None:
    """The contents of a LoRA file, with the settings that lie beside one of peft's."""
    if name is None:
        return None
    file = weights_file(locate(name))
    parts = (file, file.with_name("adapter_config.json"))
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts if part.is_file())).hexdigest()[:16]
