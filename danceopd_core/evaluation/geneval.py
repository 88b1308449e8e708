"""GenEval's prompt file, evaluation_metadata.jsonl: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from .layouts import BenchmarkPrompt


def read_geneval(path: Path) -> tuple[list[BenchmarkPrompt], list[str]]:
    """The prompts, numbered by their lines from 0 as the scorer's folders are, and a line for each fault.

    A prompt keeps its line as it is written. InputError if the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text in UTF-8: {error}") from error
    lines = text.rstrip("\r\n").split("\n") if text.strip() else []
    asked, faults = [], [] if lines else [f"{path} holds no prompts"]
    for number, line in enumerate(lines):
        place, line = f"line {number + 1}", line.rstrip("\r")
        try:
            asked.append(geneval_prompt(line, number, place))
        except InputError as error:
            faults.append(f"{place}: {error}")
    return asked, faults


def geneval_prompt(line: str, number: int, place: str = "") -> BenchmarkPrompt:
    """A line of the file; InputError, as a predicate, if GenEval's scorer could not use it."""
    if not line.strip():
        raise InputError("is blank: remove it, or give the prompt that belongs to this number")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError("is no mapping with tag, include and prompt")
    faults = list(_faults(found))
    if faults:
        raise InputError("; ".join(faults))
    return BenchmarkPrompt(number, found["prompt"], place, metadata=line, task=found["tag"])


def _faults(found: dict[str, Any]) -> Iterator[str]:
    for field in ("tag", "prompt"):
        if not isinstance(found.get(field), str) or not found[field].strip():
            yield f"has no {field}"
    if "include" not in found:
        yield "has no include"
    for field in ("include", "exclude"):
        wanted = found.get(field, [])
        if not isinstance(wanted, list) or not all(
            isinstance(one, dict) and isinstance(one.get("class"), str) and isinstance(one.get("count"), int)
            for one in wanted
        ):
            yield f"its {field} is no list of objects with class and count"
