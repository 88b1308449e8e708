"""What the tests on a real card share: when they are skipped, exact arithmetic, figures that are told.

DANCEOPD_TEST_DEVICE=cpu runs them on the CPU: their logic, without what only a card can get wrong.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA begins; for `repeatable`
DEVICE = os.environ.get("DANCEOPD_TEST_DEVICE", "cuda")
CARD = DEVICE.startswith("cuda")
HAS_CARD = torch.version.cuda is not None and torch.cuda.is_available()
needs_card = pytest.mark.skipif(
    CARD and not HAS_CARD, reason="needs an NVIDIA GPU and a build of torch for CUDA (torch.cuda.is_available())"
)
only_on_card = pytest.mark.skipif(not CARD, reason="only a real card can get this wrong")


@contextmanager
def exact() -> Iterator[None]:
    """A block in which float32 is float32: cuDNN's convolutions are of TF32 by torch's default."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def repeatable() -> Iterator[None]:
    """A block with torch's deterministic algorithms; it warns of operations that have none."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def told(what: str, **figures: object) -> None:
    """A line of JSON in the output of a test (`pytest -rP`)."""
    shown = {name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps({"what": what, **shown}))


def gap(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((found - expected).norm() / expected.norm())


def worst(found: Sequence[dict[str, float]], expected: Sequence[dict[str, float]]) -> float:
    """The largest distance of numbers by name, relative to the largest number that is expected beside them."""
    assert [one.keys() for one in found] == [one.keys() for one in expected]
    assert all(math.isfinite(value) for one in (*found, *expected) for value in one.values())
    return max(
        max(abs(one[name] - other[name]) for name in one) / max(map(abs, other.values()))
        for one, other in zip(found, expected, strict=True)
    )


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(value.equal(other[name]) for name, value in one.items())
