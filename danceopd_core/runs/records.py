"""The runs below ComfyUI's output folder: `output/danceopd/<name>`, with the LoRA in `output/loras/<name>.safetensors`.

Beside what the core's RunFolder keeps:
identity.json      what the run was trained from, by which the same graph finds its results again
status.json        the last saved live status
validation.jsonl   one line per validation
pictures/          of the validations
workflow.json      the graph that started it
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.csv_rows import read_csv
from ..data.roots import Roots
from ..errors import InputError
from ..files import write_text
from ..outside import read_json
from ..recipe.io import read_recipe
from ..recipe.schema import Recipe
from ..shapes import is_embedded, locate
from ..weights.safetensors_io import open_safetensors
from .history_pages import history_page
from .run_dir import RunFolder
from .saved_status import is_status

NAME = re.compile(r"\w(?:[\w .+-]{0,98}[\w+-])?")
VERSION = 2
"""Of identity.json. 2: the recipe's digest covers only the settings that differ from their default."""
WHOLE = 2**29
"""Files up to this many bytes are compared by their contents, larger ones by size and modification time."""


def check_name(name: str) -> str:
    """A name that is one file's on every system."""
    name = name.strip()
    if not NAME.fullmatch(name):
        raise InputError(
            f"name: '{name}' cannot name a LoRA: take letters, digits, spaces and - _ + . and no folders, 100 at most"
        )
    return name


class RunRecord:
    """The files of the run of that name."""

    def __init__(self, output: Path, name: str) -> None:
        self.name = check_name(name)
        self.path = output / "danceopd" / self.name
        self.lora = output / "loras" / f"{self.name}.safetensors"
        self.folder = RunFolder(self.path)

    def check_free(self) -> None:
        """InputError if the run's folder or LoRA file exists and is not from a run of this pack."""
        if self.path.exists() and any(self.path.iterdir()) and not (self.path / "identity.json").exists():
            raise InputError(f"name: {self.path} exists and is not the folder of a run: choose another name")
        if self.lora.exists():
            with open_safetensors(self.lora) as handle:
                if "danceopd" not in (handle.metadata() or {}):
                    raise InputError(
                        f"name: the LoRA {self.lora} exists and was not trained by this pack: choose another name"
                    )

    def set_aside(self) -> None:
        """Renames an earlier run of this name to `<name>.1`, or the next number that is free."""
        if self.path.exists():
            number = next(n for n in range(1, 10**6) if not self.path.with_name(f"{self.name}.{n}").exists())
            self.path.rename(self.path.with_name(f"{self.name}.{number}"))

    def identity(self) -> dict[str, Any]:
        """What `run_identity` and the validation gave when the run was started; empty if there is no run.

        An identity without a version holds a digest of every setting, defaults included. It is replaced by the digest
        of the run's own recipe.
        """
        found = self._read("identity.json")
        stored = found if isinstance(found, dict) else {}
        recipe = self.path / "recipe.yaml"
        if not stored or "version" in stored or not recipe.exists():
            return stored
        try:
            return {**stored, "version": VERSION, "recipe": _recipe_digest(read_recipe(recipe))}
        except InputError:
            return stored  # a damaged file: no recipe has this digest, so the run is set aside

    def status(self) -> dict[str, Any] | None:
        """The last saved status, None without a readable one; a training that ended with the server counts as
        cancelled."""
        status = self._read("status.json")
        if not is_status(status):
            return None
        pictures = [{**picture, "url": self.url(Path(picture["url"]).name)} for picture in status["pictures"]]
        state = "cancelled" if status["state"] == "training" else status["state"]
        return {**status, "run": self.name, "state": state, "pictures": pictures}  # it may have been set aside since

    def url(self, picture: str) -> str:
        """Where the server gives a picture of this run."""
        return f"/danceopd/runs/{self.name}/pictures/{picture}"

    def write(self, file: str, value: Any) -> None:
        """A JSON file of the run, atomically."""
        write_text(self.path / file, json.dumps(value, indent=1) + "\n")

    def add_validation(self, update: int, errors: Mapping[str, float | None]) -> None:
        with (self.path / "validation.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"update": update, "errors": errors}) + "\n")

    def pictures(self) -> list[Path]:
        """Those of the last validation, in order."""
        files = sorted((self.path / "pictures").glob("*.png"))
        return [file for file in files if file.name.split("-")[0] == files[-1].name.split("-")[0]]

    def losses(self) -> list[float]:
        """One an update, the mean over its routes."""
        return [sum(e["losses"].values()) / len(e["losses"]) for e in self.folder.history()]

    def history(self, after: int = 0, limit: int | None = None) -> dict[str, Any]:
        """For the page, the fields of `HistoryPage`: what follows an update, `limit` updates at most."""
        return history_page(self.path, after, limit).to_dict()

    def _read(self, file: str) -> Any:
        path = self.path / file
        try:
            return read_json(path, "the file") if path.exists() else None
        except InputError:
            return None  # an incomplete file of a machine that went down counts as absent


def unfinished(output: Path, name: str | None) -> str:
    """The state and update of a stopped or cancelled run of that name; empty for any other."""
    if name is None or not NAME.fullmatch(name.strip()):
        return ""
    status = RunRecord(output, name).status()
    return f"{status['state']} at {status['update']}" if status and status["state"] in ("stopped", "cancelled") else ""


def all_runs(output: Path) -> list[str]:
    folder = output / "danceopd"
    return sorted(path.parent.name for path in folder.glob("*/identity.json"))


def run_identity(recipe: Recipe, roots: Roots = None) -> dict[str, Any]:
    """What two runs have in common when the one can go on with, or stand for, the other; and the steps.

    roots: where the buckets' files have to lie; None: anywhere.
    """
    files = {name: contents(path) for name, path in _files(recipe)}
    for csv in filter(None, (bucket.csv for bucket in recipe.buckets())):
        files[csv] += hashlib.sha256(repr(_pictures(Path(csv), roots)).encode()).hexdigest()
    return {"version": VERSION, "recipe": _recipe_digest(recipe), "contents": files, "steps": recipe.steps}


def _recipe_digest(recipe: Recipe) -> str:
    """The digest that runs of different length have in common."""
    return replace(recipe, steps=1).digest()


def _pictures(csv: Path, roots: Roots) -> list[tuple[int, int]]:
    """Those that the rows name; none if the preflight is to refuse the file."""
    try:
        pictures = [picture for item in read_csv(csv, roots=roots) for picture in (item.source, item.target)]
    except InputError:
        return []
    return [_dated(picture) for picture in pictures if isinstance(picture, Path) and picture.exists()]


def _files(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    student = recipe.student
    names = [recipe.model, student.start if student.start != "fresh" else None, student.base_lora]
    names += recipe.components.values()
    names += [part for t in recipe.teachers.values() for part in (t.checkpoint, t.lora, t.model)]
    names += [file for bucket in recipe.buckets() for file in (bucket.csv, bucket.encoded)]
    for name in dict.fromkeys(filter(None, names)):
        path = Path(name) if not is_embedded(name) else locate(name)
        yield name, path


def contents(path: Path) -> str:
    """A stamp that changes when the file, or any file of the folder, does."""
    if path.is_dir():
        files = [(str(file.relative_to(path)), *_dated(file)) for file in sorted(path.rglob("*")) if file.is_file()]
        return hashlib.sha256(repr(files).encode()).hexdigest()
    if not path.exists():
        return "absent"
    if path.stat().st_size > WHOLE:
        return repr(_dated(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _dated(file: Path) -> tuple[int, int]:
    stat = os.stat(file)
    return stat.st_size, stat.st_mtime_ns
