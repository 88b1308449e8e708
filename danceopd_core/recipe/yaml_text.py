"""Reads YAML text without interpreting scalars: they stay text until a declared type reads them."""

from __future__ import annotations

from typing import Any

import yaml

from ..errors import Fault
from .faulty import FAULTY, short


class _Loader(yaml.BaseLoader):
    """YAML whose scalars all stay text. Tags are ignored, so nothing is ever executed."""

    def __init__(self, text: str, faults: list[Fault]) -> None:
        super().__init__(text)
        self.faults = faults

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                self.faults.append(Fault("", f"line {key.start_mark.line + 1}: {short(key.value)} is given twice"))
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep=deep)


def read_yaml(text: str, faults: list[Fault]) -> Any:
    """The document as dicts, lists and text; None if empty, FAULTY if not YAML. Duplicate keys are faults."""
    try:
        loader = _Loader(text, faults)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        faults.append(Fault("", f"{where}not valid YAML: {' '.join(filter(None, (error.context, error.problem)))}"))
    except (yaml.YAMLError, RecursionError) as error:
        faults.append(Fault("", f"not valid YAML: {' '.join(str(error).split())}"))
    return FAULTY
