"""Reads GEdit-Bench's table: edit instructions in English and Chinese with their source images."""

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
"""The tasks of the paper's table."""
SOURCE_COLUMNS = ("input_image_raw", "input_image")
"""The columns of the model's source image, in order of preference: the original, else the one that the scorer sees."""
REFERENCE_COLUMN = "input_image"
"""The image with which the scorer compares the edit."""


def read_gedit(table: Table) -> tuple[list[BenchmarkPrompt], list[str]]:
    """The rows, numbered from 0 by their positions in the table, without images, and one line per fault."""
    prompts, faults = [], [*table.faults]
    for number, (values, place) in enumerate(zip(table.texts, table.places, strict=True)):
        row_faults = list(_faults(values))
        faults += [f"{place}: {fault}" for fault in row_faults]
        if not row_faults:
            text, task, language = values["instruction"], values["task_type"], values["instruction_language"]
            prompts.append(BenchmarkPrompt(number, text, place, "", task, language, values["key"]))
    if not prompts and not faults:
        faults.append("it holds no rows")
    return prompts, faults


def _faults(values: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(values.get("instruction"), str) or not values["instruction"].strip():
        yield "has no instruction"
    if values.get("instruction_language") not in LANGUAGES:
        yield f"its instruction_language is {values.get('instruction_language')!r}, not {' or '.join(LANGUAGES)}"
    for field in ("task_type", "key"):
        if fault := name_fault(values.get(field)):
            yield f"its {field} {fault}"


def attach_images(prompts: list[BenchmarkPrompt], table: Table) -> tuple[list[BenchmarkPrompt], list[str]]:
    """The prompts with their images, and one line for each image that cannot be decoded."""

    def with_images(prompt: BenchmarkPrompt) -> BenchmarkPrompt | str:
        row = table.rows[prompt.number]
        source_column = next((column for column in SOURCE_COLUMNS if row.get(column)), REFERENCE_COLUMN)
        try:
            for column in dict.fromkeys((REFERENCE_COLUMN, source_column)):
                if not row.get(column):
                    return f"{prompt.place}: it has no {column}"
                size = upright_size(picture_file(row[column], table.folder).data)
        except InputError as error:
            return f"{prompt.place}: its {column} {error}"
        return prompt._replace(
            source=_opener(table, prompt.number, source_column),
            reference=_opener(table, prompt.number, REFERENCE_COLUMN),
            size=size,
        )

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(with_images, prompts))
    faults = [result for result in results if isinstance(result, str)]
    return [result for result in results if isinstance(result, BenchmarkPrompt)], faults


def _opener(table: Table, index: int, column: str) -> Source:
    return lambda: np.asarray(upright(picture_file(table.rows[index][column], table.folder).data))
