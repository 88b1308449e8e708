"""Reads GenEval's prompt file, evaluation_metadata.jsonl: one JSON object per line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..outside import TABLE_LIMIT, parse_json, read_text
from .layouts import BenchmarkPrompt


def read_geneval(path: Path) -> tuple[list[BenchmarkPrompt], list[str]]:
    """The prompts, numbered from 0 by their lines as the scorer's folders are, and one line per fault.

    A prompt keeps its line unchanged. InputError if the file cannot be read.
    """
    text = read_text(path, "the prompts", TABLE_LIMIT)
    lines = text.rstrip("\r\n").split("\n") if text.strip() else []
    prompts, faults = [], [] if lines else [f"{path} holds no prompts"]
    for number, line in enumerate(lines):
        place, line = f"line {number + 1}", line.rstrip("\r")
        try:
            prompts.append(geneval_prompt(line, number, place))
        except InputError as error:
            faults.append(f"{place}: {error}")
    return prompts, faults


def geneval_prompt(line: str, number: int, place: str = "") -> BenchmarkPrompt:
    """The prompt of a line; InputError with a predicate ("has no tag") if GenEval's scorer cannot use the line."""
    if not line.strip():
        raise InputError("is blank: remove it, or give the prompt that belongs to this number")
    try:
        entry = parse_json(line, "it")
    except InputError as error:
        raise InputError(f"is no JSON: {error}") from error
    if not isinstance(entry, dict):
        raise InputError("is no mapping with tag, include and prompt")
    faults = list(_faults(entry))
    if faults:
        raise InputError("; ".join(faults))
    return BenchmarkPrompt(number, entry["prompt"], place, metadata=line, task=entry["tag"])


def _faults(entry: dict[str, Any]) -> Iterator[str]:
    for field in ("tag", "prompt"):
        if not isinstance(entry.get(field), str) or not entry[field].strip():
            yield f"has no {field}"
    if "include" not in entry:
        yield "has no include"
    for field in ("include", "exclude"):
        objects = entry.get(field, [])
        if not isinstance(objects, list) or not all(
            isinstance(item, dict) and isinstance(item.get("class"), str) and isinstance(item.get("count"), int)
            for item in objects
        ):
            yield f"its {field} is no list of objects with class and count"
