"""What is measured: released models, their student's rank, their teachers, their base, and the memory there is."""

from __future__ import annotations

from dataclasses import dataclass

from ...runs.budget.released import RELEASED


@dataclass(frozen=True)
class PeakCase:
    """An update of batch 1 at 1024 x 1024 pixels, with two LoRA teachers of the student's rank.

    model: a name of RELEASED. edit: its prompt has a source picture. full: one full checkpoint is the teacher instead.
    base: the quantisation of the frozen network. free: GiB of the card that may be taken; then `memory: auto` chooses
    checkpointing and base.
    """

    model: str
    rank: int
    checkpointing: bool = True
    edit: bool = False
    full: bool = False
    base: str | None = None
    free: float | None = None

    def __str__(self) -> str:
        parts = [
            f"rank {self.rank}",
            "edits" * self.edit,
            "one full checkpoint" * self.full,
            self.base or "",
            "" if self.checkpointing else "without checkpointing",
            "" if self.free is None else f"{self.free:g} GiB free",
        ]
        return ", ".join([RELEASED[self.model].title, *filter(None, parts)])


CASES = (
    PeakCase("sd35m", 16),
    PeakCase("sd35m", 16, False),
    PeakCase("sd35m", 128),
    PeakCase("sd35m", 128, False),
    PeakCase("sd35m", 16, full=True),
    PeakCase("sd35m", 16, base="int8"),
    PeakCase("sd35m", 16, False, base="int8"),
    PeakCase("sd35m", 16, base="fp8"),
    PeakCase("sd35m", 16, base="nf4"),
    PeakCase("zimage", 16),
    PeakCase("zimage", 128),
    PeakCase("zimage", 128, False),
    PeakCase("zimage", 128, edit=True),
    PeakCase("zimage", 16, full=True),
    PeakCase("zimage", 128, base="int8"),
    PeakCase("zimage", 128, base="nf4"),
    PeakCase("klein4b", 16),
    PeakCase("klein4b", 128, False),
    PeakCase("klein4b", 16, edit=True),
    PeakCase("klein4b", 16, full=True),
    PeakCase("flux", 16),
    PeakCase("flux", 128, False),
    PeakCase("krea2", 16),
    PeakCase("krea2", 16, False),
    PeakCase("qwen21", 128),
    PeakCase("qwen21", 128, False),
    PeakCase("klein9b", 128),
    PeakCase("qwen", 16),
    PeakCase("qwen", 16, base="int8"),
)
"""Models one after another, so that each network is filled once for every kind of base."""
SMALL = ("sd35m", "zimage")
QUICK = (PeakCase("sd35m", 16), PeakCase("sd35m", 16, base="int8"), PeakCase("sd35m", 16, base="nf4"))
LIMITED = (
    PeakCase("zimage", 128, free=23),
    PeakCase("sd35m", 128, free=11.2),
    PeakCase("zimage", 128, edit=True, free=15),
    PeakCase("zimage", 16, free=11.2),
    PeakCase("flux", 16, free=23),
)
"""Cards of 24, 12 and 16 GB, as in docs/memory.md."""
QUICK_LIMITED = (PeakCase("sd35m", 128, free=11.2),)
