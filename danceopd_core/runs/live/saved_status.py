"""The saved status of a run, checked at the edge: the file lies in a folder that others may have written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...errors import encodable
from ..files.numbers import is_finite, is_update, measured
from ..files.run_names import ENDING, is_file_name

STATES = ("opening", "training", "done", "stopped", "cancelled", "failed")


def _number(value: Any) -> bool:
    return is_finite(value)


def _numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(part is None or _number(part) for part in value.values())


def _pairs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(map(_number, pair)) for pair in value
    )


def _pictures(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(picture, dict) and isinstance(picture.get("prompt"), str) and isinstance(picture.get("url"), str)
        for picture in value
    )


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _file_name(value: Any) -> bool:
    """Whether it is the name of a LoRA file, and no path to elsewhere."""
    if not isinstance(value, str) or len(value) > 255 or not encodable(value):
        return False
    return value.endswith(ENDING) and not set(value) & set("\\/:\0")


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53  # a page's numbers are no longer


def _best(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and is_update(value.get("update"))
        and is_finite(value.get("percent"))
        and _numbers(value)
    )


def _optional(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _all(checks: dict[str, Callable[[Any], bool]], value: dict[str, Any]) -> bool:
    return all(check(value[name]) for name, check in checks.items())


SAVED: dict[str, Callable[[Any], bool]] = {
    "lora": _file_name,
    "folder": _text,
    "update": _count,
    "seconds": _number,
    "best_kept": lambda value: type(value) is bool,
}
REQUIRED: dict[str, Callable[[Any], bool]] = {
    "state": lambda value: value in STATES,
    "update": _count,
    "steps": _count,
    "losses": _numbers,
    "pictures": _pictures,
}
OTHERS: dict[str, Callable[[Any], bool]] = {
    "node": _text,
    "display_node": _text,
    "run": _text,
    "message": _text,
    "work": _optional(lambda value: isinstance(value, dict)),
    "earlier": _text,
    "warning": _text,
    "start": _numbers,
    "validation": _optional(_numbers),
    "watched": lambda value: isinstance(value, list) and all(map(_text, value)),
    "held_out": _numbers,
    "best": _optional(_best),
    "saved": _optional(lambda value: isinstance(value, dict) and value.keys() == SAVED.keys() and _all(SAVED, value)),
    "finished_before": lambda value: type(value) is bool,
    "rate": _optional(_number),
    "eta": _optional(_number),
    "memory_mb": _optional(_number),
    "asked": _pairs,
    "shares": _optional(_numbers),
    "health": _optional(lambda value: isinstance(value, dict) and all(map(_text, value.values()))),
    "time": _number,
}


def is_status(value: Any) -> bool:
    """Whether a value from a file is a status as `LiveStatus` has them; older versions lack some keys.

    What cannot be, of the numbers that a status can do without, becomes null in it: it is JSON for every reader.
    """
    if not isinstance(value, dict) or not value.keys() >= REQUIRED.keys():
        return False
    _mend(value)
    return all(check(value[name]) for name, check in (REQUIRED | OTHERS).items() if name in value)


def picture_name(picture: Mapping[str, str]) -> str:
    """The file of a picture of a status; empty for a URL whose end no file can be named, a picture that is absent."""
    name = picture["url"].rpartition("/")[2]
    return name if is_file_name(name) else ""


def _mend(status: dict[str, Any]) -> None:
    _clear(status)
    for name in ("rate", "memory_mb"):
        if is_finite(status.get(name)) and measured(status[name]) is None:
            status[name] = None
    if is_finite(status.get("eta")) and not 0 <= status["eta"] < 1e12:
        status["eta"] = None
    if "best" in status and not _best(status["best"]):
        status["best"] = None
    saved = status.get("saved")
    if isinstance(saved, dict) and saved.get("seconds", 0) is None:
        saved["seconds"] = 0.0


def _clear(tree: Any) -> None:
    """Numbers that no float holds become null. The depth of JSON that was read is limited."""
    if isinstance(tree, (dict, list)):
        for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree):
            if type(inner) in (int, float) and not is_finite(inner):
                tree[key] = None
            else:
                _clear(inner)
