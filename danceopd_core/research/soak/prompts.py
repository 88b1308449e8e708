"""The part `prompts` of the soak: hostile prompts and requests against a running server."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from ...errors import shown
from .comfy_server import ComfyServer, ServerGone
from .graphs import PROBE, succeeded, training
from .mutation import ODD, mutated_bytes
from .outcomes import FREEZE, OK, REFUSED, TRACEBACK, Counts

HOSTILE: tuple[Any, ...] = (
    *ODD, "circle \ud800", "\x1b[2J", "a\x00b", "CON", "..", "../../x", "\u202eevil", "x" * 300, "🙂" * 90, "~/x",
    "%00", "steps=1", "query.k=1\neta=\ud800", "optimizer.lr=nan", "out=/nowhere/x", ["1", 0], ["99", 0],
    {"content": "CSV file"},
)  # fmt: skip
TABLES = (
    b"prompt,source_image\na,/etc/passwd\n", b"prompt,source_image\na,../../../../etc/passwd\n",
    b"prompt\n" + b"x" * 200_000 + b"\n", b"prompt,source_image\na,~root/x.png\n", b"\x00\xff", b"prompt\n\x1b[2J\n",
    b'prompt\n"unclosed\n',
)  # fmt: skip
TEXTS = {
    "name": b"hostile", "validation_prompts": b"a circle\na star", "more_settings": b"optimizer.clip=0.5\nquery.k=1",
    "negative": b"blurry", "targets": b"to_q, to_k", "content.prompts": b"a circle\na star",
}  # fmt: skip
"""Inputs that take any text, and a sound one of each."""
PATHS = (
    "/danceopd/runs/..%2F..", "/danceopd/runs/%ED%A0%80/history", "/danceopd/runs/soak/history?after=-1&limit=x",
    "/danceopd/runs/soak/pictures/..%2Fstatus.json", "/danceopd/nodes/%00", "/danceopd/runs/" + "a" * 4000,
    "/danceopd/runs/soak/history?limit=1",
)  # fmt: skip


def soak_prompts(
    counts: Counts, count: int, seed: int, freeze: float, comfyui: Path, folder: Path, log: Callable[[str], None]
) -> None:
    """Adds the outcomes of `count` hostile prompts; after each, a plain prompt has to run."""
    with ComfyServer(comfyui, folder) as server:
        server.run(training("soak", seed), freeze)
        for number in range(count):
            rng = Random(f"prompts {seed} {number}")
            prompt, what = _hostile(rng, folder)
            try:
                outcome, told = _outcome(server, prompt, freeze)
                counts.add("prompt", outcome, f"--seed {seed}, number {number}: {what}\n{told}")
                path = rng.choice(PATHS)
                status, _ = server.ask(path)
                counts.add("request", TRACEBACK if status >= 500 else REFUSED if status >= 400 else OK, f"GET {path}")
                if not succeeded(server.run(PROBE, freeze)):
                    counts.add("prompt", FREEZE, f"number {number}: {what}: the next prompt does not run")
                    return
            except ServerGone as error:
                counts.add("prompt", TRACEBACK, f"number {number}: {what}: {error}\n{server.log()[-1500:]}")
                return
            log(f"prompt {number}: {outcome}")


def _hostile(rng: Random, base: Path) -> tuple[dict[str, Any], str]:
    """A training with some inputs replaced, and what was replaced."""
    graph = training("hostile", rng.randrange(10**6))
    own = [node for node in graph.values() if node["class_type"].startswith("DanceOPD_")]
    changed = []
    if rng.random() < 0.3:
        (base / "input" / "hostile.csv").write_bytes(
            rng.choice(TABLES) if rng.random() < 0.5 else mutated_bytes(b"prompt,task\na circle,t2i\n", rng)
        )
        node = next(node for node in own if node["class_type"] == "DanceOPD_Bucket")
        node["inputs"] = {"content": "CSV file", "content.file": "hostile.csv", "content.task": ""}
        changed.append("a table")
    elif rng.random() < 0.5:
        node = next(node for node in own if node["class_type"] == "DanceOPD_Bucket")
        node["inputs"] = {"content": "lines of text", "content.prompts": "a circle\na star"}
    for _ in range(rng.randint(0 if changed else 1, 3)):
        node = rng.choice(own)
        name, value = rng.choice(list(node["inputs"])), rng.choice(HOSTILE)
        if rng.random() < 0.8:  # most other inputs have a check of ComfyUI's own
            node, name = rng.choice([(node, name) for node in own for name in TEXTS if name in node["inputs"]])
            value = value if isinstance(value, str) else mutated_bytes(TEXTS[name], rng).decode(errors="replace")
        node["inputs"][name] = copy.deepcopy(value)
        changed.append(f"{node['class_type']}.{name} = {shown(repr(node['inputs'][name]), 60)}")
    return graph, ", ".join(changed)


def _outcome(server: ComfyServer, prompt: dict[str, Any], freeze: float) -> tuple[str, str]:
    status, answer = server.ask("/prompt", {"prompt": prompt})
    if status != 200:
        return (REFUSED, "") if status < 500 else (TRACEBACK, f"status {status} of /prompt, ComfyUI's own")
    entry = server.wait(answer["prompt_id"], freeze)
    if entry is None:
        return FREEZE, f"more than {freeze:g} s"
    if succeeded(entry):
        return OK, ""
    error = dict(entry["status"]["messages"]).get("execution_error", {})
    kind, text = str(error.get("exception_type")), str(error.get("exception_message"))
    if kind.endswith(".InputError") and text == shown(text):
        return REFUSED, ""
    return TRACEBACK, f"{error.get('node_type')}: {kind}: {text[:500]}\n{''.join(error.get('traceback', []))[-1500:]}"
