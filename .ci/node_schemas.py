"""Reads the user-facing texts of the node schemas from their source, by ast: without ComfyUI."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NODES = Path(__file__).resolve().parent.parent / "nodes"
CONTROL = "control_after_generate"
CONTROL_TEXTS = ("control after generate", "How the seed changes after each queued prompt. fixed: it stays the same.")
"""Name and tooltip of the widget that ComfyUI adds to a seed; they are in no schema."""


@dataclass(frozen=True)
class Socket:
    """An input or output. id: as in the schema. key: as in nodeDefs.json, where `content.prompts` is `content_prompts`
    and an output is its index. number: the value of the loop variable in the id, if there is one."""

    id: str
    key: str
    name: str
    tooltip: str
    number: int | None = None


@dataclass(frozen=True)
class NodeTexts:
    """The user-facing texts of one node."""

    node_id: str
    display_name: str
    description: str
    inputs: tuple[Socket, ...]
    outputs: tuple[Socket, ...]


Scope = dict[str, Any]


class SchemaReader:
    """Reads `io.Schema(...)` calls from source text, with the module constants and helper functions that they use."""

    def __init__(self, sources: Iterable[str]) -> None:
        self.trees = [ast.parse(source) for source in sources]
        statements = [statement for tree in self.trees for statement in tree.body]
        self.helpers = {
            node.name: node for node in statements if isinstance(node, ast.FunctionDef) and _names_inputs(node)
        }
        self.constants = {
            node.targets[0].id: node.value.value
            for node in statements
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        }

    def nodes(self) -> list[NodeTexts]:
        """Every node, by its id."""
        calls = [node for tree in self.trees for node in ast.walk(tree) if _is_call(node, "Schema")]
        return sorted(map(self._node, calls), key=lambda node: node.node_id)

    def _node(self, call: ast.Call) -> NodeTexts:
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        texts = [self._value(given[name], {}) for name in ("node_id", "display_name", "description")]
        inputs = {socket.key: socket for socket in self._inputs(given["inputs"], {})}  # options share inputs
        outputs = [node for node in ast.walk(given["outputs"]) if _is_call(node, "Output")]
        return NodeTexts(
            *texts,
            inputs=tuple(inputs.values()),
            outputs=tuple(self._socket(output, {}, key=str(i)) for i, output in enumerate(outputs)),
        )

    def _inputs(self, node: ast.AST, scope: Scope, prefix: str = "") -> Iterator[Socket]:
        if _is_call(node, "Input"):
            socket = self._socket(node, scope, prefix=prefix)
            yield socket
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            if CONTROL in keywords and self._value(keywords[CONTROL], scope):
                yield Socket(CONTROL, prefix + CONTROL, *CONTROL_TEXTS)
            for value in keywords.values():
                yield from self._inputs(value, scope, f"{socket.key}_")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self.helpers:
            helper = self.helpers[node.func.id]
            yield from self._children(helper, self._arguments(helper, node, scope), prefix)
        elif isinstance(node, ast.ListComp):
            yield from self._loop(node, node.generators, scope, prefix)
        else:
            yield from self._children(node, scope, prefix)

    def _children(self, node: ast.AST, scope: Scope, prefix: str) -> Iterator[Socket]:
        for child in ast.iter_child_nodes(node):
            yield from self._inputs(child, scope, prefix)

    def _loop(
        self, node: ast.ListComp, generators: list[ast.comprehension], scope: Scope, prefix: str
    ) -> Iterator[Socket]:
        """A comprehension, with the values of the clauses over a `range`; other clauses may hold inputs themselves."""
        if not generators:
            yield from self._inputs(node.elt, scope, prefix)
            return
        first, *rest = generators
        values = first.iter
        if isinstance(values, ast.Call) and isinstance(values.func, ast.Name) and values.func.id == "range":
            for number in range(*(self._value(argument, scope) for argument in values.args)):
                yield from self._loop(node, rest, {**scope, first.target.id: number}, prefix)
        else:
            yield from self._inputs(values, scope, prefix)
            yield from self._loop(node, rest, scope, prefix)

    def _arguments(self, helper: ast.FunctionDef, call: ast.Call, scope: Scope) -> Scope:
        names, defaults = [argument.arg for argument in helper.args.args], helper.args.defaults
        given = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
        given |= dict(zip(names, call.args, strict=False))
        given |= {keyword.arg: keyword.value for keyword in call.keywords}
        return {name: self._value(value, scope) for name, value in given.items()}

    def _socket(self, call: ast.Call, scope: Scope, prefix: str = "", key: str = "") -> Socket:
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        name = self._value(call.args[0], scope)
        display_name = self._value(given["display_name"], scope) if "display_name" in given else name
        numbers = [scope[part.id] for part in ast.walk(call.args[0]) if isinstance(part, ast.Name)]
        number = numbers[0] if numbers else None
        return Socket(name, key or prefix + name, display_name, self._value(given["tooltip"], scope), number)

    def _value(self, node: ast.expr, scope: Scope) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name() if node.id in scope or node.id in self.constants:
                return scope[node.id] if node.id in scope else self.constants[node.id]
            case ast.FormattedValue():
                return self._value(node.value, scope)
            case ast.JoinedStr():
                return "".join(str(self._value(part, scope)) for part in node.values)
            case ast.BinOp(op=ast.Add()):
                return self._value(node.left, scope) + self._value(node.right, scope)
        raise SystemExit(f"line {node.lineno}: {ast.unparse(node)} is not a text that this script can read")


def _is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name


def _names_inputs(function: ast.FunctionDef) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr == "Input" for node in ast.walk(function))


def read_nodes(folder: Path = NODES) -> list[NodeTexts]:
    """The texts of every node of the pack."""
    return SchemaReader(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))).nodes()
