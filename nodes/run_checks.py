"""What nodes are asked before a prompt is queued, beside the headers of weights: what their widgets alone can tell.

A value that another node gives is None, and is checked when it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..danceopd_core.errors import InputError
from ..danceopd_core.recipe.from_graph import recipe_of
from ..danceopd_core.recipe.graph import FieldSpec, ModelSpec, PromptSpec, RouteSpec, RoutesSpec
from ..danceopd_core.recipe.schema import Bucket, Student, Teacher
from ._comfy import io

ABSENT = object()
"""In place of an input that is not connected."""


def widget(value: Any) -> Any:
    """The value of a widget, which ComfyUI puts into a list for nodes that take lists."""
    return value[0] if isinstance(value, list | tuple) and value else value


def widgets(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the node itself has."""
    found = {name: widget(value) for name, value in inputs.items()}
    return {name: value for name, value in found.items() if value is not None}


def told(check: Callable[[], object]) -> str:
    """What the check raises as InputError; empty if nothing."""
    try:
        check()
    except InputError as error:
        return str(error)
    return ""


def limits(inputs: Iterable[io.Input], values: Mapping[str, Any]) -> Iterator[str]:
    """The values that are out of a widget's range or list: ComfyUI leaves them to a node that checks the widget."""
    for given in inputs:
        value, settings = values.get(given.id), given.as_dict()
        if value is None:
            continue
        options = settings.get("options")
        if options and given.get_io_type() == "COMBO" and value not in options:
            yield f"{given.id}: '{value}' is not in the list: choose one of it"
        for key, wrong, side in (("min", float.__lt__, "below"), ("max", float.__gt__, "above")):
            if key in settings and isinstance(value, int | float) and wrong(float(value), float(settings[key])):
                yield f"{given.id}: {value} is {side} {settings[key]}"


def settings_fault(settings: Mapping[str, Any], more: str) -> str:
    """What is wrong with the settings of a training, whatever its model, routes and student are.

    settings: as `recipe_of` takes them.
    """
    model = ModelSpec("shapes", "float32")
    field = FieldSpec(model, "teacher", ((Teacher(), 1.0),))
    routes = RoutesSpec((RouteSpec(field, PromptSpec(Bucket(prompts=("a prompt",)), "prompts")),))
    return told(lambda: recipe_of(routes, Student(), settings, more))


def both_loras(lora_name: Any, lora: Any) -> str:
    """lora: ABSENT where none is connected."""
    name = widget(lora_name)
    if lora is ABSENT or name in (None, "none"):
        return ""
    return "lora_name: a LoRA is connected already: set it to none, or disconnect the other"


def pictures_without_prompts(prompts_name: str, prompts: Any, sources_name: str, sources: Any) -> str:
    """sources: ABSENT where none are connected."""
    text = widget(prompts)
    if sources is ABSENT or text is None or str(text).strip():
        return ""
    return f"{sources_name}: they are edited by {prompts_name}, and there are none: write one for all, or one each"
