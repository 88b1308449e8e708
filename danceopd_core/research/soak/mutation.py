"""Changes files as an attacker or a bad disk would: bytes, text, trees of JSON, headers of safetensors. By seed."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

TOKENS = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b'"', b"'", b",", b":", b"[" * 5000, b"{" * 5000, b"}",
    b"&a *a", b"*a", b"!!python/object:os.system", b"<<: ", b"- ", b"\t", b"9" * 5000, b"-1", b"1e999", b"NaN",
    b"null", b"true",
    b"\\ud800", b"\x1b[2J", b"../../etc/passwd", b"/dev/zero", b"~", b"%s%n", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80",
    b"(a+)+$", b"=cmd|' /C calc'!A0", b"? ", b"|", b">", b"#", b"@", b"`",
)  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 0.5, float("inf"), float("nan"), "", " ", "none",
    "\x00", "\ud800", "\x1b]0;x\x07", "x" * 70_000, "../../../etc/passwd", "/dev/zero", "shapes", "shapes:none",
    "(a+)+$", [], {}, [[]], [None], {"": None}, [1] * 3000, {"a": {"b": {"c": {}}}},
)  # fmt: skip


def mutated_bytes(data: bytes, rng: Random) -> bytes:
    """Some bytes flipped, cut out, doubled, or put in."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randint(0, len(data))
        length = rng.choice((1, 1, 4, 64, len(data) // 2))
        kind = rng.randrange(6)
        if kind == 0 and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + data[at + length :]
        elif kind == 2:
            data = data[:at] + data[at : at + length] + data[at:]
        elif kind == 3:
            data = data[:at]
        elif kind == 4:
            data = data[:at] + rng.randbytes(min(length, 64)) + data[at:]
        else:
            data = data[:at] + rng.choice(TOKENS) + data[at:]
    return data


def deep(depth: int, mapping: bool) -> Any:
    """Lists or mappings in each other."""
    tree: Any = 1
    for _ in range(depth):
        tree = {"a": tree} if mapping else [tree]
    return tree


def mutated_tree(tree: Any, rng: Random) -> Any:
    """A copy of a tree of JSON with some values or keys replaced, taken out or added."""
    tree = json.loads(json.dumps(tree))
    for _ in range(rng.randint(1, 4)):
        places = list(_places(tree))
        if not places:
            return _odd(rng)
        parent, key = rng.choice(places)
        kind = rng.randrange(8)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[f"{key}_"] = parent.pop(key)
        elif kind == 2 and isinstance(parent, dict):
            parent[rng.choice(("", "\ud800", "__class__", "x" * 5000, "a.b[0]"))] = _odd(rng)
        elif kind == 3:
            parent[key] = deep(rng.choice((5, 70, 400)), rng.random() < 0.5)
        elif kind == 4:
            other, name = rng.choice(places)
            parent[key] = other[name] if (name in other if isinstance(other, dict) else name < len(other)) else None
            tree = json.loads(json.dumps(tree)) if _acyclic(tree) else {}
        else:
            parent[key] = _odd(rng)
    return tree


def _odd(rng: Random) -> Any:
    return copy.deepcopy(rng.choice(ODD))


def _acyclic(tree: Any) -> bool:
    try:
        json.dumps(tree)
    except (ValueError, RecursionError):
        return False
    return True


def _places(tree: Any, depth: int = 0) -> Any:
    if depth > 20:
        return
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key], depth + 1)


def mutated_safetensors(data: bytes, rng: Random) -> bytes:
    """The file with another header, other metadata, or other bytes."""
    if rng.random() < 0.25:
        return mutated_bytes(data, rng)
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    if rng.random() < 0.5:
        metadata = header.pop("__metadata__", {})
        values = {key: _mutated_text(value, rng) for key, value in metadata.items()}
        header["__metadata__"] = values if rng.random() < 0.7 else mutated_tree(metadata, rng)
    else:
        header = mutated_tree(header, rng)
    text = json.dumps(header).encode()
    size = len(text) if rng.random() < 0.9 else rng.choice((0, 1, len(text) - 1, len(text) + 9, 2**40, 2**64 - 1))
    return size.to_bytes(8, "little") + text + rest


def _mutated_text(text: str, rng: Random) -> str:
    """Metadata is text; where that is JSON, the JSON is changed too."""
    try:
        tree = json.loads(text)
    except ValueError:
        tree = None
    if isinstance(tree, (dict, list)) and rng.random() < 0.7:
        return json.dumps(mutated_tree(tree, rng))
    return mutated_bytes(text.encode(), rng).decode(errors="replace")
