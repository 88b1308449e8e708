"""Reads YAML text without interpreting scalars: they stay text until a declared type reads them."""

from __future__ import annotations

from typing import Any

import yaml

from ..errors import Fault
from ..outside import DEPTH_LIMIT
from .faulty import FAULTY, short

NODE_LIMIT = 50_000
"""Of values, lists and mappings in a document, aliases counted as what they stand for."""
TEXT_LIMIT = 4 * 2**20
"""Characters of a document."""


class _Loader(yaml.BaseLoader):
    """YAML whose scalars all stay text. Tags are ignored, so nothing is ever executed.

    A document is given up on once it is too deep or too large, before anything is made of it.
    """

    def __init__(self, text: str, faults: list[Fault]) -> None:
        super().__init__(text)
        self.faults = faults
        self._count, self._depth = 0, 0
        self._sizes: dict[int, int] = {}  # of finished nodes, by identity: the composer keeps those with an anchor

    def compose_node(self, parent: Any, index: Any) -> Any:
        before, mark = self._count, self.peek_event().start_mark
        alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise yaml.MarkedYAMLError(problem=f"lists are more than {DEPTH_LIMIT} deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if alias and id(node) not in self._sizes:
            raise yaml.MarkedYAMLError(problem="an alias stands inside of what it stands for", problem_mark=mark)
        self._count += self._sizes[id(node)] if alias else 1
        if self._count > NODE_LIMIT:
            raise yaml.MarkedYAMLError(problem=f"it has more than {NODE_LIMIT} values", problem_mark=mark)
        self._sizes[id(node)] = self._count - before
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                self.faults.append(Fault("", f"line {key.start_mark.line + 1}: {short(key.value)} is given twice"))
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep=deep)


def read_yaml(text: str, faults: list[Fault]) -> Any:
    """The document as dicts, lists and text; None if empty, FAULTY if not YAML. Duplicate keys are faults."""
    if len(text) > TEXT_LIMIT:
        faults.append(Fault("", f"it has more than {TEXT_LIMIT} characters: put prompts into a CSV file"))
        return FAULTY
    try:
        loader = _Loader(text, faults)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        faults.append(Fault("", f"{where}not valid YAML: {' '.join(filter(None, (error.context, error.problem)))}"))
    except (yaml.YAMLError, RecursionError, ArithmeticError, ValueError) as error:  # also for "\\UFFFFFFFF"
        faults.append(Fault("", f"not valid YAML: {' '.join(str(error).split())}"))
    return FAULTY
