"""What the widgets of Student LoRA mean."""

from __future__ import annotations

from ..danceopd_core.errors import InputError
from ..danceopd_core.recipe.schema import Student
from ._comfy import NONE, chosen, lora_choices

FRESH = "fresh"
BOTH = f"over: only a fresh student lies over a frozen LoRA: set start to {FRESH}, or over to {NONE}"


def student_of(start: str, rank: int, alpha: float, targets: str, over: str = NONE) -> Student:
    """What the widgets say; InputError for files that are not offered."""
    under = chosen(lora_choices(), over, "over")
    if start != FRESH:
        if under:
            raise InputError(BOTH)
        return Student(start=chosen(lora_choices(), start, "start"))
    names = tuple(name.strip() for name in targets.split(",") if name.strip())
    return Student(rank=rank, alpha=alpha or None, targets=names, base_lora=under)
