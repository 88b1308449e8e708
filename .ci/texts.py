"""Writes the texts of the node schemas into the help pages and locales/en; --check only reports what is out of date.

The tooltips in nodes/ are the source of English, locales/<language>/nodeDefs.json that of a translation. Each help page
web/docs/<node>/<language>.md gets its title, its first paragraph and its two tables from there; the rest of a page is
written by hand. The schemas are read from the source by ast, so ComfyUI is not needed.

Usage: python .ci/texts.py [--check]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from node_schemas import CONTROL, NodeTexts, Socket, read_nodes

ROOT = Path(__file__).resolve().parent.parent
HEADINGS = {
    "en": ("Input", "Output", "Description"),
    "zh": ("输入", "输出", "说明"),
    "ja": ("入力", "出力", "説明"),
}
"""The first columns of the input and the output table, and the second column of both, by language."""


def english(nodes: Iterable[NodeTexts]) -> dict[str, Any]:
    """The contents of locales/en/nodeDefs.json."""

    def entries(sockets: Iterable[Socket]) -> dict[str, dict[str, str]]:
        return {socket.key: {"name": socket.name, "tooltip": socket.tooltip} for socket in sockets}

    return {
        node.node_id: {
            "display_name": node.display_name,
            "description": node.description,
            "inputs": entries(node.inputs),
            "outputs": entries(node.outputs),
        }
        for node in nodes
    }


def page(text: str, node: NodeTexts, entry: dict[str, Any], language: str) -> str:
    """A help page with its title, first paragraph and tables replaced by those of the node's nodeDefs entry."""
    tables = iter((_input_table(node, entry, language), _output_table(node, entry, language)))
    paragraphs = text.rstrip("\n").split("\n\n")
    paragraphs[:2] = [f"# {entry['display_name']}", entry["description"]]
    return "\n\n".join(next(tables) if part.startswith("|") else part for part in paragraphs) + "\n"


def _input_table(node: NodeTexts, entry: dict[str, Any], language: str) -> str:
    rows = []
    for socket in node.inputs:
        if socket.id == CONTROL or socket.number not in (None, 1):
            continue
        shown = entry["inputs"][socket.key]
        more = "" if socket.number is None else " …"
        name = "" if shown["name"] == socket.id else f" {shown['name']}"
        rows.append((f"`{socket.id}`{more}{name}", shown["tooltip"]))
    heading, _, description = HEADINGS[language]
    return _table([(heading, description), ("---", "---"), *rows])


def _output_table(node: NodeTexts, entry: dict[str, Any], language: str) -> str:
    _, heading, description = HEADINGS[language]
    shown = [entry["outputs"][socket.key] for socket in node.outputs]
    return _table([(heading, description), ("---", "---"), *((one["name"], one["tooltip"]) for one in shown)])


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"| {left} | {right} |" for left, right in rows)


def generated() -> dict[Path, str]:
    """Every file that this script writes, with the contents that it must have."""
    nodes = read_nodes()
    files = {ROOT / "locales/en/nodeDefs.json": json.dumps(english(nodes), indent=2, ensure_ascii=False) + "\n"}
    for language in HEADINGS:
        source = ROOT / "locales" / language / "nodeDefs.json"
        entries = english(nodes) if language == "en" else json.loads(source.read_text(encoding="utf-8"))
        for node in nodes:
            path = ROOT / "web/docs" / node.node_id / f"{language}.md"
            files[path] = page(path.read_text(encoding="utf-8"), node, entries[node.node_id], language)
            if language == "en":  # what ComfyUI shows in languages without a page
                files[path.parent.with_suffix(".md")] = files[path]
    return files


def outdated(files: Mapping[Path, str]) -> list[Path]:
    """The files whose contents on disk differ."""
    return [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__)
        return 2
    files = generated()
    changed = outdated(files)
    for path in changed:
        if not arguments:
            path.write_text(files[path], encoding="utf-8", newline="\n")
        print(f"{'out of date' if arguments else 'written'}: {path.relative_to(ROOT)}")
    return 1 if arguments and changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
