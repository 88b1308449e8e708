"""What every node does with text from outside: half characters are refused, and no error carries text that is not
printable.

ComfyUI writes errors to its log, and an error with a lone surrogate in it ends the thread that runs prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from ..danceopd_core.errors import InputError, encodable, is_shown, shown
from ._comfy import io

GUARDED = ("execute", "fingerprint_inputs", "check_lazy_status")
"""The methods of a node that ComfyUI calls while it runs a prompt."""


def guarded(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The same node, with its methods guarded."""
    for name in GUARDED:
        if name in vars(node):
            setattr(node, name, classmethod(_guarded(vars(node)[name].__func__)))
    return node


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(cls: Any, *args: Any, **inputs: Any) -> Any:
        try:
            for name, value in inputs.items():
                _check(name, value)
            return method(cls, *args, **inputs)
        except Exception as error:
            if is_shown(error):
                raise
            told = InputError(str(error)) if isinstance(error, InputError) else _escaped(error)
        raise told  # outside: the error that led here must not be printed with it

    return call


def _escaped(error: Exception) -> Exception:
    return RuntimeError(f"{type(error).__name__}: {shown(str(error))}")


def _check(name: str, value: Any) -> None:
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
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
