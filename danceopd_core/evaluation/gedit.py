"""GEdit-Bench's table: instructions in English and Chinese with the pictures that they edit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..data.images import picture_file, upright, upright_size
from ..errors import InputError
from .layouts import BenchmarkPrompt, Source, name_fault
from .tables import Table

LANGUAGES = ("en", "cn")
PAPER = ("subject-add", "subject-replace", "background_change", "style_change", "color_alter", "subject-remove")
"""The tasks of DanceOPD's table."""
EDITED = ("input_image_raw", "input_image")
"""What a model is given: the picture as it came, or, where there is none, the one that the scorer sees."""
SHOWN = "input_image"


def read_gedit(table: Table) -> tuple[list[BenchmarkPrompt], list[str]]:
    """The rows, numbered by their places in the table from 0, and a line for each fault.

    Their pictures are looked at with `attach_images`.
    """
    asked, faults = [], [*table.faults]
    for number, (values, place) in enumerate(zip(table.texts, table.places, strict=True)):
        found = list(_faults(values))
        faults += [f"{place}: {fault}" for fault in found]
        if not found:
            text, task = values["instruction"], values["task_type"]
            asked.append(BenchmarkPrompt(number, text, place, "", task, values["instruction_language"], values["key"]))
    if not asked and not faults:
        faults.append("it holds no rows")
    return asked, faults


def _faults(values: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(values.get("instruction"), str) or not values["instruction"].strip():
        yield "has no instruction"
    if values.get("instruction_language") not in LANGUAGES:
        yield f"its instruction_language is {values.get('instruction_language')!r}, not {' or '.join(LANGUAGES)}"
    for field in ("task_type", "key"):
        if fault := name_fault(values.get(field)):
            yield f"its {field} {fault}"


def attach_images(asked: list[BenchmarkPrompt], table: Table) -> tuple[list[BenchmarkPrompt], list[str]]:
    """The prompts with their pictures, each of which was decoded once, and a line for each that cannot be."""

    def with_pictures(one: BenchmarkPrompt) -> BenchmarkPrompt | str:
        row = table.rows[one.number]
        edited = next((column for column in EDITED if row.get(column)), SHOWN)
        try:
            for column in dict.fromkeys((SHOWN, edited)):
                if not row.get(column):
                    return f"{one.place}: it has no {column}"
                size = upright_size(picture_file(row[column], table.folder).data)
        except InputError as error:
            return f"{one.place}: its {column} {error}"
        return one._replace(
            source=_opener(table, one.number, edited), shown=_opener(table, one.number, SHOWN), size=size
        )

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(with_pictures, asked))
    return [one for one in found if isinstance(one, BenchmarkPrompt)], [one for one in found if isinstance(one, str)]


def _opener(table: Table, index: int, column: str) -> Source:
    return lambda: np.asarray(upright(picture_file(table.rows[index][column], table.folder).data))
