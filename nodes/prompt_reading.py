"""What a prompt trains, read from its nodes without running one: for estimates before a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..danceopd_core.data.csv_rows import read_csv
from ..danceopd_core.data.roots import file_of
from ..danceopd_core.errors import InputError
from ..danceopd_core.recipe.file_names import LIVE
from ..danceopd_core.recipe.from_graph import recipe_of, teacher_label
from ..danceopd_core.recipe.graph import FieldSpec, ModelSpec, PromptSpec, RouteSpec, RoutesSpec
from ..danceopd_core.recipe.schema import Bucket, Recipe, Teacher
from ._comfy import checkpoint_choices, chosen, csv_choices, lora_choices, readable_folders, size_of
from .bucket_node import KINDS, QUICK_BYTES
from .field_nodes import LoadModel
from .native.identity import upstream_digest
from .native_nodes import DIGESTED
from .quality import resolved
from .student_spec import student_of
from .train_nodes import recipe_settings
from .training_inputs import training_inputs

DEEPEST = 64
"""Nodes one above another."""
MOST = 2000
"""Nodes that are read, one that two ask for twice: else a few that mix a field with itself would take forever."""


class Unknown(Exception):
    """A part that is known only when the prompt runs: what another node makes."""


def recipe_in(prompt: Mapping[str, Any], node: str) -> Recipe:
    """The recipe of a Train node, as far as it matters for memory and time. Texts and pictures are stand-ins.

    A MODEL of ComfyUI has its name, with no title unless it is the embedded one. Unknown for a value that another node
    gives; InputError for a prompt that holds something else.
    """
    return _Reader(prompt).train(node)


def models_of_student(prompt: Mapping[str, Any], node: str) -> Iterator[ModelSpec]:
    """The models over which Train nodes of the prompt train this student, as far as the prompt says it."""
    for other in prompt.values():
        if other.get("class_type") == "DanceOPD_Train" and other["inputs"].get("student") == [node, 0]:
            with suppress(Unknown, InputError):  # which are told on the nodes that have them
                yield _Reader(prompt).model(other["inputs"])


class _Reader:
    def __init__(self, prompt: Mapping[str, Any]) -> None:
        self._prompt, self._depth, self._read = prompt, 0, 0

    def train(self, node: str) -> Recipe:
        from ..danceopd_core.runs.plans.sources import graph_source

        _, inputs = self._node(node)
        routes, student = self._above(inputs, "routes", ROUTES), self._above(inputs, "student", STUDENTS)
        own = {given.id: given.default for given in training_inputs() if hasattr(given, "default")}
        given = {name: _value(inputs, name, default) for name, default in own.items() if name in own}
        more = str(given.pop("more_settings"))
        for name in ("name", "validation_prompts", "validate_every", "resume"):
            del given[name]
        model = routes.model
        if model.folder.startswith(LIVE):
            settings = {name: value for name, value in given.items() if name != "quality"}
        else:
            settings = resolved(given, graph_source(model, []))
        return recipe_of(routes, student, recipe_settings(model, Path("estimate"), **settings), more)

    def model(self, inputs: Mapping[str, Any]) -> ModelSpec:
        routes: RoutesSpec = self._above(inputs, "routes", ROUTES)
        return routes.model

    def _node(self, key: str) -> tuple[str, dict[str, Any]]:
        node = self._prompt.get(key)
        self._read += 1
        if self._read > MOST:
            raise InputError("the prompt has too many nodes, or they run in a circle")
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
            raise InputError(f"node {key}: the prompt does not have it")
        return str(node.get("class_type")), node["inputs"]

    def _above(self, inputs: Mapping[str, Any], name: str, readers: Mapping[str, Reading]) -> Any:
        """What the node that an input is linked to gives. readers: by the type of that node."""
        link = inputs.get(name)
        if not _is_link(link):
            raise InputError(f"{name}: nothing is connected")
        kind, own = self._node(str(link[0]))
        if kind not in readers:
            raise Unknown(f"{name} is made by {kind}")
        self._depth += 1
        if self._depth > DEEPEST:
            raise InputError("the nodes of the prompt run in a circle")
        try:
            return readers[kind](self, str(link[0]), own)
        finally:
            self._depth -= 1

    def routes(self, node: str, inputs: dict[str, Any]) -> RoutesSpec:
        count = str(_value(inputs, "routes", "1"))
        if not count.isdecimal() or not 1 <= int(count) <= 8:
            raise InputError("routes: it is none of the list")
        specs = []
        for number in range(1, int(count) + 1):
            field = self._above(inputs, f"routes.field{number}", FIELDS)
            prompts = self._above(inputs, f"routes.bucket{number}", BUCKETS)
            specs.append(RouteSpec(field, prompts, float(_value(inputs, f"routes.weight{number}", 1.0))))
        return RoutesSpec(tuple(specs), str(_value(inputs, "router", "weighted")))

    def learned(self, node: str, inputs: dict[str, Any]) -> RoutesSpec:
        """Its classifier costs nothing beside the training."""
        routes: RoutesSpec = self._above(inputs, "routes", ROUTES)
        return routes

    def teacher(self, node: str, inputs: dict[str, Any]) -> FieldSpec:
        lora = chosen(lora_choices(), _value(inputs, "lora", "none"), "lora")
        full = chosen(checkpoint_choices(), _value(inputs, "checkpoint", "none"), "checkpoint")
        teacher = Teacher(checkpoint=full, lora=lora)
        return FieldSpec(self._above(inputs, "model", MODELS), teacher_label(teacher), ((teacher, 1.0),))

    def guided(self, node: str, inputs: dict[str, Any]) -> FieldSpec:
        field: FieldSpec = self._above(inputs, "field", FIELDS)
        return field.guided(float(_value(inputs, "scale", 1.0)), "")

    def mixed(self, node: str, inputs: dict[str, Any]) -> FieldSpec:
        first: FieldSpec = self._above(inputs, "first", FIELDS)
        return first.mixed(self._above(inputs, "second", FIELDS), float(_value(inputs, "share", 0.5)))

    def other(self, node: str, inputs: dict[str, Any]) -> FieldSpec:
        field: FieldSpec = self._above(inputs, "field", FIELDS)
        return field.over(self._above(inputs, "flow_model", MODELS))

    def native_field(self, node: str, inputs: dict[str, Any]) -> FieldSpec:
        """Its weights are those of the run's MODEL or lie beside them: not known here."""
        return FieldSpec(self._above(inputs, "flow_model", MODELS), node, ((Teacher(), 1.0),))

    def bucket(self, node: str, inputs: dict[str, Any]) -> PromptSpec:
        content = _value(inputs, "content", "")
        if content == "embedded world":
            return PromptSpec(Bucket(shapes=chosen(KINDS, _value(inputs, "content.kind", ""), "kind")), node)
        edits = "source_images" in inputs
        if content == "CSV file":
            file = chosen(csv_choices(), _value(inputs, "content.file", ""), "file")
            table = file_of(file, Path(), readable_folders())
            edits = size_of(table) > QUICK_BYTES or any(item.source is not None for item in read_csv(table))
        return PromptSpec(Bucket(shapes="edit") if edits else Bucket(prompts=("a prompt",)), node)

    def encoded(self, node: str, inputs: dict[str, Any]) -> PromptSpec:
        return PromptSpec(Bucket(prompts=("a prompt",)), node)

    def folder(self, node: str, inputs: dict[str, Any]) -> ModelSpec:
        given = (_value(inputs, name, default) for name, default in LOADED.items())
        model: ModelSpec = LoadModel.execute(*given).args[0]
        return model

    def live(self, node: str, inputs: dict[str, Any]) -> ModelSpec:
        link, title = inputs.get("model"), ""
        while _is_link(link):
            kind, above = self._node(str(link[0]))
            title = "Shapes" if kind == "DanceOPD_LoadShapes" else ""
            link = above.get("model") if kind == "DanceOPD_LoadLora" else None
        try:
            digest = upstream_digest(self._prompt, node, DIGESTED)
        except RecursionError:
            raise InputError("the nodes of the prompt run in a circle") from None
        return ModelSpec(f"{LIVE}{title}:{digest}", "float32" if title else "bfloat16")

    def student(self, node: str, inputs: dict[str, Any]) -> Any:
        names = {"start": "fresh", "rank": 16, "alpha": 0.0, "targets": "", "over": "none"}
        return student_of(**{name: _value(inputs, name, default) for name, default in names.items()})


Reading = Callable[[_Reader, str, dict[str, Any]], Any]
LOADED = {"model": "shapes", "dtype": "auto", "transformer": "none", "quantise": "none"}
ROUTES: dict[str, Reading] = {"DanceOPD_Routes": _Reader.routes, "DanceOPD_LearnedRouter": _Reader.learned}
FIELDS: dict[str, Reading] = {
    "DanceOPD_Teacher": _Reader.teacher,
    "DanceOPD_Guided": _Reader.guided,
    "DanceOPD_Mixed": _Reader.mixed,
    "DanceOPD_OtherField": _Reader.other,
    "DanceOPD_NativeField": _Reader.native_field,
}
BUCKETS: dict[str, Reading] = {"DanceOPD_Bucket": _Reader.bucket, "DanceOPD_ConditioningBucket": _Reader.encoded}
MODELS: dict[str, Reading] = {"DanceOPD_LoadModel": _Reader.folder, "DanceOPD_NativeModel": _Reader.live}
STUDENTS: dict[str, Reading] = {"DanceOPD_Student": _Reader.student}


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _value(inputs: Mapping[str, Any], name: str, default: Any) -> Any:
    """Of a widget; Unknown if another node gives it, InputError for a value of another kind."""
    value = inputs.get(name, default)
    if _is_link(value):
        raise Unknown(f"{name} is made by another node")
    if isinstance(default, bool) or not isinstance(default, int | float):
        right = isinstance(value, type(default))
    else:
        right = isinstance(value, int | float) and not isinstance(value, bool)
    if not right:
        raise InputError(f"{name}: {type(value).__name__} is no value of it")
    return value
