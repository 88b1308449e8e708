"""Checks the LoRAs, checkpoints and single files of a recipe by their headers, before any weight is read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path

from torch import nn

from ...errors import Fault, InputError
from ...models.hub import is_hub_id
from ...models.registry import empty_network
from ...models.single_files import check_single_file
from ...recipe.file_names import is_live
from ...recipe.schema import Bucket, Recipe, Route, Student, Teacher
from ...shapes import is_embedded, locate
from ...weights.full_checkpoints import check_weights
from ...weights.linear_like import linear_shapes
from ...weights.lora_header import check_lora

Check = Callable[[Path], None]


def weight_faults(recipe: Recipe, faulty: Collection[str | None]) -> Iterator[Fault]:
    """A fault for each file of weights that cannot be used, as far as headers and the models' configurations tell.

    faulty: the models whose configuration cannot be read, None for the run's; their files are checked without it.
    """
    networks = _Networks(faulty, recipe.model)
    for setting, file, check in _checks(recipe, networks):
        try:
            if file is not None and not is_live(file):
                check(locate(file))
        except InputError as error:
            yield Fault(setting, str(error))


def check_teachers(model: str, teachers: Mapping[str, Teacher]) -> None:
    """One InputError with a fault for each file of the teachers that is none for a model of this name, or their own."""
    route = Route("route", next(iter(teachers)), Bucket(prompts=("a prompt",)))
    if faults := tuple(weight_faults(Recipe(model, (route,), dict(teachers)), ())):
        raise InputError(faults=faults)


def check_student(model: str, student: Student) -> None:
    """One InputError with a fault for each LoRA of the student that is none for a model of this name."""
    route = Route("route", "base", Bucket(prompts=("a prompt",)))
    recipe = Recipe(model, (route,), {"base": Teacher()}, student)
    if faults := tuple(weight_faults(recipe, ())):
        raise InputError(faults=faults)


def _checks(recipe: Recipe, networks: _Networks) -> Iterator[tuple[str, str | None, Check]]:
    """(setting, file or None, its check)."""
    student = recipe.student
    if student.start != "fresh":
        yield "student.start", student.start, partial(networks.check_lora, student.start, None)
    for part, file in recipe.components.items():
        own = networks.of(None) if part == "transformer" else None
        yield f"components.{part}", file, partial(check_single_file, own)
    if student.base_lora is not None:
        yield "student.base_lora", student.base_lora, partial(networks.check_lora, student.base_lora, None)
    for name, teacher in recipe.teachers.items():
        model = teacher.model or None
        if teacher.lora is not None:
            yield f"teachers.{name}.lora", teacher.lora, partial(networks.check_lora, teacher.lora, model)
        if teacher.checkpoint is not None:
            check = partial(networks.check_checkpoint, teacher.checkpoint, model)
            yield f"teachers.{name}.checkpoint", teacher.checkpoint, check


class _Networks:
    """The networks of the run's model, None, and of others by name, without weights; each is made once."""

    def __init__(self, faulty: Collection[str | None], model: str) -> None:
        self._faulty, self._model = faulty, model
        self._made: dict[str | None, nn.Module | None] = {}

    def of(self, name: str | None) -> nn.Module | None:
        """None where the configuration is not at hand."""
        if name not in self._made:
            self._made[name] = None if name in self._faulty else _network(name or self._model)
        return self._made[name]

    def check_lora(self, file: str, model: str | None, path: Path) -> None:
        shipped = is_embedded(file) and is_embedded(model or self._model)
        network = None if shipped else self.of(model)
        check_lora(path, None if network is None else linear_shapes(network))

    def check_checkpoint(self, file: str, model: str | None, path: Path) -> None:
        shipped = is_embedded(file) and is_embedded(model or self._model)
        check_weights(None if shipped else self.of(model), path)


def _network(model: str) -> nn.Module | None:
    if is_live(model) or is_hub_id(model):
        return None
    folder = locate(model)
    try:
        return empty_network(folder) if (folder / "transformer" / "config.json").is_file() else None
    except Exception:  # what is wrong with a configuration is told when it is read
        return None
