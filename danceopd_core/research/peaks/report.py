"""The measured cases as records and as Markdown tables."""

from __future__ import annotations

from typing import Any

from ...runs.budget.memory import GIB
from .cases import PeakCase
from .update import Measured


def record(case: PeakCase, found: Measured | None, error: str = "") -> dict[str, Any]:
    """A case as plain values; sizes in GiB. `with_computed` adds what was computed."""
    values: dict[str, Any] = {"case": str(case), **vars(case)}
    if found is None:
        return {**values, "error": error}
    return {
        **values,
        "allocated": round(found.allocated / GIB, 3),
        "reserved": round(found.reserved / GIB, 3),
        "before": round(found.before / GIB, 3),
        "seconds": round(found.seconds, 4),
        "tflop": round(found.flops / 1e12, 2),
        "tflop_per_second": round(found.flops / 1e12 / max(found.seconds, 1e-9), 1),
    }


def with_computed(row: dict[str, Any], peak: int, choice: str = "") -> dict[str, Any]:
    """The record with the peak that `danceopd memory` has for it, and with what `memory: auto` chose."""
    size = round(peak / GIB, 3)
    ratio = {"ratio": round(row["allocated"] / size, 3)} if row.get("allocated") else {}
    return {**row, "computed": size, **ratio, **({"choice": choice} if choice else {})}


def markdown(card: str, rows: list[dict[str, Any]]) -> str:
    """A table of the cases that were measured, and lines for those that failed."""
    lines = [
        f"| {card}: 1024 x 1024, batch 1 | allocated, GiB | reserved, GiB | computed, GiB | allocated / computed "
        "| seconds | TFLOP | TFLOP/s |",
        f"|---|{'---|' * 7}",
    ]
    for row in (row for row in rows if "error" not in row):
        cells = [
            row["case"],
            f"{row['allocated']:.1f}",
            f"{row['reserved']:.1f}",
            _number(row, "computed", ".1f"),
            _number(row, "ratio", ".2f"),
            f"{row['seconds']:.2f}",
            f"{row['tflop']:.0f}",
            f"{row['tflop_per_second']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"- {row['case']}: {row['choice']}" for row in rows if "choice" in row]
    notes += [
        f"- {row['case']}: {row['error']}; {_number(row, 'computed', '.1f')} GiB computed"
        for row in rows
        if "error" in row
    ]
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def _number(row: dict[str, Any], key: str, form: str) -> str:
    return f"{row[key]:{form}}" if key in row else "-"
