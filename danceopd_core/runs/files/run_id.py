"""A run's id, and by it which run a LoRA file is of."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import write_text
from ...outside import parse_json, read_json
from ...weights.safetensors_io import open_header, open_safetensors, same_tensor

ID_FILE = "run.json"


@dataclass(frozen=True)
class RunFacts:
    """What run.json holds. id: random, of one run. stamps: of the files that it is trained from, by name."""

    id: str = ""
    stamps: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path, run: str, stamps: Mapping[str, str]) -> None:
        """Replaces the file where it differs."""
        if (self.id, self.stamps) != (run, stamps):
            text = json.dumps({"version": 1, "id": run, "stamps": stamps}, indent=1, sort_keys=True)
            write_text(folder / ID_FILE, text + "\n")


def new_run_id() -> str:
    return uuid.uuid4().hex


def read_run(folder: Path) -> RunFacts:
    """Empty for runs of version 0.1.0, and for a file that is damaged."""
    if not (folder / ID_FILE).exists():
        return RunFacts()
    try:
        found = read_json(folder / ID_FILE, "the run's id")
        run, stamps = found["id"], found["stamps"]
        valid = isinstance(run, str) and run.isalnum() and isinstance(stamps, dict)
        return RunFacts(run, {str(name): str(stamp) for name, stamp in stamps.items()}) if valid else RunFacts()
    except (InputError, KeyError, TypeError):
        return RunFacts()


def facts_of_lora(file: Path) -> Mapping[str, Any]:
    """What a run wrote into the header of its LoRA file, such as "run" and "update"; empty for any other file."""
    try:
        with open_header(file) as handle:
            found = parse_json((handle.metadata() or {}).get("danceopd", "{}"), str(file))
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def run_of_lora(file: Path) -> str:
    """The id of the run that wrote a LoRA file; empty if none did, or one of version 0.1.0."""
    run = facts_of_lora(file).get("run")
    return run if isinstance(run, str) else ""


def same_weights(one: Path, other: Path) -> bool:
    """Whether two safetensors files hold the same tensors."""
    try:
        with open_safetensors(one) as a, open_safetensors(other) as b:
            return set(a.keys()) == set(b.keys()) and all(
                same_tensor(a.get_tensor(key), b.get_tensor(key))
                for key in a.keys()  # noqa: SIM118 (no dict)
            )
    except InputError:
        return False
