"""The training states that a run's folder keeps: the newest, and those before it in case that one is damaged.

RUN/state.safetensors           the newest
RUN/state-000300.safetensors    after that update, the one before it
RUN/state-damaged.safetensors   what could not be read
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import InputError
from .train_state import load_state, save_state

MOST = 10**9
"""Of any counter."""
_EARLIER = re.compile(r"state-(\d{6,10})\.safetensors")


class StateFiles:
    """The states in a run's folder."""

    def __init__(self, folder: Path) -> None:
        self.newest = folder / "state.safetensors"
        self._folder = folder
        self.update: int | None = None
        """Of the newest state, if this process loaded or saved it."""

    def exist(self) -> bool:
        return self.newest.exists() or bool(self.earlier())

    def earlier(self) -> list[Path]:
        """Those before the newest, the last one first."""
        found = {path: match for path in self._folder.glob("state-*") if (match := _EARLIER.fullmatch(path.name))}
        return sorted(found, key=lambda path: int(found[path][1]), reverse=True)

    def load(
        self, check: Callable[[dict[str, Any], Path], None], tell: Callable[[str], None]
    ) -> tuple[Path, dict[str, Any]]:
        """The newest state that is whole and that `check` takes, and its file. tell: hears of those that are not.

        InputError, of the newest one, if none is.
        """
        faults: list[str] = []
        for path in filter(Path.exists, [self.newest, *self.earlier()]):
            try:
                state = load_state(path)
                check_counters(state, path)
                check(state, path)
            except InputError as error:
                faults.append(str(error))
                continue
            for fault in faults:
                tell(f"{fault}. The run goes on from the state before it, of update {state['update']}")
            return path, state
        raise InputError(faults[0])

    def adopt(self, path: Path, update: int) -> None:
        """Makes a state that was loaded the newest; keeps a damaged newer one under another name."""
        if path != self.newest:
            if self.newest.exists():
                os.replace(self.newest, self._folder / "state-damaged.safetensors")
            os.replace(path, self.newest)
        self.update = update
        for left in self.earlier():
            if int(_EARLIER.fullmatch(left.name)[1]) >= update:  # type: ignore[index]
                left.unlink()

    def save(self, state: dict[str, Any], kept: int) -> None:
        """Writes the newest state. kept: how many there are afterwards, at most."""
        if self.update is not None and self.update != state["update"] and kept > 1 and self.newest.exists():
            keep_as(self.newest, self._folder / f"state-{self.update:06d}.safetensors")
        save_state(self.newest, state)
        self.update = state["update"]
        for path in self.earlier()[kept - 1 :]:
            path.unlink()


def keep_as(file: Path, place: Path) -> None:
    """The file under another name too, unless that is taken; where the file system has no such thing, moved there."""
    with suppress(FileExistsError):
        try:
            os.link(file, place)
        except FileExistsError:
            raise
        except OSError:
            os.replace(file, place)


def check_counters(state: dict[str, Any], path: Path) -> None:
    """InputError for a state whose counters no run has."""
    update: Any = state.get("update")
    taken, done = state.get("taken"), None
    counters = [update, state.get("processes", 1), *(taken if isinstance(taken, list) else [None])]
    if isinstance(schedule := state.get("schedule"), dict):
        done = schedule.get("last_epoch")
    valid = all(type(number) is int and 0 <= number <= MOST**2 for number in counters)
    if not valid or done != update or update > MOST:
        raise InputError(f"{path} is damaged: its counters {counters} are not those of a run")
