"""What a run will take, before it begins: its memory from shapes, its time from earlier runs on this machine."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...algorithm.expected_cost import expected_forwards
from ...errors import InputError
from ...recipe.file_names import LIVE, is_live
from ...recipe.io import read_recipe
from ...recipe.schema import Recipe
from ..budget.memory import GIB, checkpoints_by_default, estimate
from ..files.numbers import measured
from ..plans.planning import build_method
from ..stored.records import RunRecord, all_runs

LATEST = 12
"""Runs that are looked at for a rate."""
KEPT = 16
MOST = {"width": 8192, "height": 8192, "batch": 1024, "accumulate": 1024, "group": 1024, "rollout_steps": 1000}
MOST |= {"query.k": 1000, "student.rank": 8192, "routes": 64}
"""The sizes up to which something is reckoned: a request or a run's file of a stranger may hold any."""
SHAPES = f"{LIVE}Shapes:"


@dataclass(frozen=True)
class Forecast:
    """memory: bytes at the peak, seconds: of all updates; None for what is not known. measured: on this machine, and
    not from shapes."""

    memory: int | None
    seconds: float | None
    measured: bool

    @property
    def basis(self) -> str:
        return "measured" if self.measured else "shapes"

    def text(self) -> str:
        """One sentence."""
        if self.memory is None:
            return "memory and time are known after the first updates" if self.seconds is None else self._time
        if self.seconds is None:
            return f"{memory_text(self.memory)}; time is known after the first updates"
        return f"{memory_text(self.memory)}, {self._time}"

    @property
    def _time(self) -> str:
        return f"about {time_text(self.seconds or 0)} here"


def forecast(recipe: Recipe, output: Path) -> Forecast:
    """InputError for files that are missing or of another kind. output: ComfyUI's, below which the runs are.

    A MODEL of ComfyUI is known from runs only, the embedded one apart: nothing is loaded.
    """
    for name, value in sizes_of(recipe).items():
        if value > MOST[name]:
            raise InputError(f"{name}: nothing is reckoned for {value}: use {MOST[name]} at most")
    rate = next(_rates(recipe, output), None)
    memory = None
    if not is_live(recipe.model) or recipe.model.startswith(SHAPES):
        model = "shapes" if is_live(recipe.model) else recipe.model
        memory = _walks.peak(replace(recipe, model=model))
    elif rate is not None:
        memory = rate.memory
    seconds = None if rate is None else recipe.steps * rate.seconds * _cost(recipe) / rate.cost
    return Forecast(memory, seconds, rate is not None)


def sizes_of(recipe: Recipe) -> dict[str, int]:
    """What the work of an estimate grows with, by the names of MOST."""
    names = ("width", "height", "batch", "accumulate", "group")
    sizes = {name: getattr(recipe, name) or 0 for name in names} | {"rollout_steps": recipe.path_steps}
    return {**sizes, "query.k": recipe.query.k, "student.rank": recipe.student.rank, "routes": len(recipe.routes)}


def memory_text(size: float) -> str:
    """ "17 GiB", "2.3 GiB", "310 MiB"."""
    if size < 0.95 * GIB:
        return f"{size / 2**20:.0f} MiB"
    return f"{size / GIB:.0f} GiB" if size >= 10 * GIB else f"{size / GIB:.1f} GiB"


def time_text(seconds: float) -> str:
    """ "50 s", "40 min", "3.5 h"."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class _Rate:
    """seconds: of an update that costs `cost`. memory: in bytes, as the device told it."""

    seconds: float
    cost: float
    memory: int | None


def _rates(recipe: Recipe, output: Path) -> Iterator[_Rate]:
    """Of runs with the same work a sample, the latest first."""
    runs = [RunRecord(output, name) for name in all_runs(output)]
    files = [(file.stat().st_mtime_ns, run) for run in runs if (file := run.path / "status.json").is_file()]
    for _, run in sorted(files, key=lambda entry: entry[0], reverse=True)[:LATEST]:
        status = run.status() or {}
        rate, memory = measured(status.get("rate")), measured(status.get("memory_mb"))
        try:
            other = read_recipe(run.path / "recipe.yaml")
        except (InputError, OSError):
            continue
        if any(value > MOST[name] for name, value in sizes_of(other).items()):
            continue
        if rate and status["update"] >= 2 and _work(other) == _work(recipe):
            yield _Rate(1 / rate, _cost(other), round(memory * 1e6) if memory else None)


def _work(recipe: Recipe) -> tuple[Any, ...]:
    """What the time of a forward depends on, as far as a recipe says it."""
    model = recipe.model.rpartition(":")[2] if is_live(recipe.model) else recipe.model
    size = recipe.width, recipe.height, recipe.batch, recipe.dtype, recipe.quantise, recipe.compile
    return model, *sorted(recipe.components.items()), *size, recipe.device, checkpoints_by_default(recipe)


def _cost(recipe: Recipe) -> float:
    """Forwards of an update, the mean over the routes."""
    sigmas = torch.linspace(1, 0, recipe.path_steps + 1)
    own = [
        sum(1 + (recipe.teachers[name].guidance != 1) for name in route.teachers) * (route.weight or 0)
        for route in recipe.routes
    ]
    calls = sum(own) / (sum(route.weight for route in recipe.routes) or 1)
    method, routes = build_method(recipe), len(recipe.routes) if recipe.router == "all" else 1
    return recipe.batch * recipe.accumulate * routes * method.group * expected_forwards(method, sigmas, calls or 1)


class _Walks:
    """The peaks of recipes, one walk at a time; those of the latest shapes are kept, since a walk takes seconds."""

    def __init__(self) -> None:
        self._lock, self._peaks = threading.Lock(), OrderedDict[str, int]()

    def peak(self, recipe: Recipe) -> int:
        plain = replace(recipe, steps=1, seed=0, out="run", save_every=1, rollout_steps=None)
        with self._lock:
            key = plain.digest() + str(plain.offload) + plain.device
            if key not in self._peaks:
                found = estimate(recipe).memory(recipe, checkpoints_by_default(recipe), recipe.batch)
                self._peaks[key] = found.peak
            self._peaks.move_to_end(key)
            while len(self._peaks) > KEPT:
                self._peaks.popitem(last=False)
            return self._peaks[key]


_walks = _Walks()
