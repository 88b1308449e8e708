"""Limits of settings, for Annotated types: each maps a value to what is wrong with it, or to ""."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from .faulty import short


@dataclass(frozen=True)
class Range:
    """Numbers from low to high; without low itself if `above`, without high itself if `below`."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __call__(self, value: float) -> str:
        if (self.low < value if self.above else self.low <= value) and (
            value < self.high if self.below else value <= self.high
        ):
            return ""
        return f"{short(value)} is out of range: it must be {self}"

    def __str__(self) -> str:
        low = "" if self.low == -math.inf else f"above {self.low}" if self.above else f"at least {self.low}"
        high = "" if self.high == math.inf else f"below {self.high}" if self.below else f"at most {self.high}"
        return " and ".join(filter(None, (low, high)))


@dataclass(frozen=True)
class NotBlank:
    """Text with at least one visible character."""

    def __call__(self, value: str) -> str:
        return "" if value.strip() else "it must not be empty"

    def __str__(self) -> str:
        return "not empty"


Text = Annotated[str, NotBlank()]
Count = Annotated[int, Range(1, 10**9)]
Whole = Annotated[int, Range(0, 10**9)]
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1, below=True)]
Sigma = Annotated[float, Range(0, 1)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
