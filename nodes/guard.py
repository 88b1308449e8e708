"""What every node does with what a prompt gives it, before anything else: text is text that files can hold, sockets
hold what nodes made, and no error carries text that is not printable.

ComfyUI checks neither, and writes errors to its log: one with a lone surrogate in it ends the thread that runs prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from inspect import signature
from typing import Any

from ..danceopd_core.errors import InputError, encodable, is_shown, shown
from ._comfy import io

WIDGETS = ("STRING", "INT", "FLOAT", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")
"""Types whose values a prompt may hold as such."""

Check = Callable[[str, Any], None]


def guarded(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The same node, with the methods guarded that ComfyUI calls while it runs a prompt."""
    _guard(node, "execute", _socket_check(node.define_schema()))
    if "validate_inputs" in vars(node):
        _guard_validation(node)
    for name in ("fingerprint_inputs", "check_lazy_status"):
        if name in vars(node):
            _guard(node, name, lambda name, value: None)
    return node


def _guard(node: type[io.ComfyNode], name: str, check: Check) -> None:
    method = vars(node)[name].__func__

    @wraps(method)
    def call(cls: Any, *args: Any, **inputs: Any) -> Any:
        try:
            for name, value in inputs.items():
                _check_text(name, value)
                check(name, value)
            return method(cls, *args, **inputs)
        except Exception as error:
            if is_shown(error):
                raise
            told = InputError(str(error)) if isinstance(error, InputError) else _escaped(error)
        raise told  # outside: the error that led here must not be printed with it

    setattr(node, name, classmethod(call))


def _guard_validation(node: type[io.ComfyNode]) -> None:
    """What goes wrong while a prompt is validated is said of the node, too."""
    method = vars(node)["validate_inputs"].__func__

    @wraps(method)
    def call(cls: Any, *args: Any, **inputs: Any) -> Any:
        try:
            for name, value in inputs.items():
                _check_text(name, value)
            found = method(cls, *args, **inputs)
        except Exception as error:
            return shown(str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
        return shown(found) if isinstance(found, str) else found

    call.__signature__ = signature(method)  # type: ignore[attr-defined]  # ComfyUI reads which inputs it takes
    node.validate_inputs = classmethod(call)  # type: ignore[assignment, method-assign]


def _escaped(error: Exception) -> Exception:
    return RuntimeError(f"{type(error).__name__}: {shown(str(error))}")


def _check_text(name: str, value: Any) -> None:
    """InputError for a widget with a lone surrogate, which no file and no tokenizer takes."""
    for text in _texts(value):
        if not encodable(text):
            raise InputError(f"{name}: '{shown(text, 80)}' holds half of a character (a lone surrogate): type it again")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from (*_texts(key), *_texts(part))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def _socket_check(schema: io.Schema) -> Check:
    """A check of one input: what comes in at a socket was made by a node, and is no value of the prompt itself."""
    inputs = [found for given in schema.inputs for found in given.get_all()]
    sockets = {given.id: given.optional for given in inputs if given.get_io_type() not in WIDGETS}

    def check(name: str, value: Any) -> None:
        if name in sockets:
            parts = value if isinstance(value, list) else [value]  # a list of what several nodes gave, or one's
            if not sockets[name] and any(part is None for part in parts):
                raise InputError(f"{name}: the loader gave none: choose a file that has it, or a loader of its own")
            if _is_plain(value):
                raise InputError(f"{name}: nothing is connected: connect the output of a node")
        elif isinstance(value, dict):  # what belongs to the choice of a dynamic combo
            for inner, part in value.items():
                check(inner, part)

    return check


def _is_plain(value: Any) -> bool:
    """Whether a prompt's JSON can hold the value, None apart, which nodes give too."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, str | int | float | bool)
