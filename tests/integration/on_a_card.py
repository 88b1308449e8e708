"""Shipped workflows in a real server, one after the other: whether each ran, how long, and the memory that stays."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .graphs import short
from .native_graphs import native, picture, with_samplers
from .server import Server, messages, succeeded

NATIVE = "native"
"""The quick start over Load Shapes, with the same prompt and noise drawn by the pack and by KSampler."""


def settled(server: Server) -> float:
    """Megabytes that the server's torch holds on the card once it has let go of all models."""
    server.post("/free", {"unload_models": True, "free_memory": True})
    found = [-1.0]
    for _ in range(20):
        time.sleep(0.25)
        card = server.get("/system_stats")["devices"][0]
        found.append(round((card["torch_vram_total"] - card["torch_vram_free"]) / 1e6, 1))
        if len(found) > 4 and found[-1] == found[-2] == found[-3]:
            break
    return found[-1]


def fault_of(entry: dict[str, Any]) -> str:
    """What went wrong in a prompt, its traceback first."""
    error = messages(entry).get("execution_error")
    if not error:
        return str(entry["status"])
    return f"{''.join(error['traceback'])}{error['node_type']}: {error['exception_type']}: {error['exception_message']}"


def tried(server: Server, base: Path, names: list[str], **train: Any) -> Iterator[dict[str, Any]]:
    """A row for every workflow; `train` are widgets of its Train node. A fault is told in its row."""
    for name in names:
        row: dict[str, Any] = {"workflow": name, "fault": "", "before_mb": settled(server)}
        start = time.perf_counter()
        try:
            run = f"card {name}"
            graph = with_samplers(native(run, **train)) if name == NATIVE else short(name, run, **train)
            entry = server.run(graph)
            row["seconds"] = round(time.perf_counter() - start, 1)
            if not succeeded(entry):
                row["fault"] = fault_of(entry)
            row["lora"] = (base / "output" / "loras" / f"{run}.safetensors").exists()
            row["trains"] = any(node["class_type"] == "DanceOPD_Train" for node in graph.values())
            if name == NATIVE and not row["fault"]:
                drawn = [picture(base, entry, f"save {which}") for which in ("ours", "theirs", "direct")]
                row["ours_theirs"], row["direct_theirs"] = (
                    int(abs(drawn[0] - drawn[1]).max()), int(abs(drawn[2] - drawn[1]).max()),
                )  # fmt: skip
        except Exception:
            row["fault"] = traceback.format_exc()
        row["after_mb"] = settled(server)
        yield row
