"""Whether a student has moved away from its teachers, although its losses are finite."""

from __future__ import annotations

from collections.abc import Mapping

WARNING = "the student is further from its teachers than at the start: lower the learning rate"
GROWTH, SLACK = 1.5, 0.1
"""How far the mean relative error may rise above that of the start: a student that starts as one of its teachers moves
away from that one to reach the others."""


def divergence(start: Mapping[str, float | None], errors: Mapping[str, float | None]) -> str:
    """A sentence if the mean of a validation's errors is that of a run that diverges; else empty.

    start: the errors before the first update; empty if they are not known. An error that is not finite is None.
    """
    if not start or not errors:
        return ""
    if None in errors.values():
        return WARNING
    before, now = (sum(filter(None, found.values())) / len(found) for found in (start, errors))
    return WARNING if now > GROWTH * before + SLACK else ""
