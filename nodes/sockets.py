"""The types of the pack's own edges."""

from __future__ import annotations

from ._comfy import io

CATEGORY = "DanceOPD"

ModelSocket = io.Custom("DANCEOPD_MODEL")
FieldSocket = io.Custom("DANCEOPD_FIELD")
BucketSocket = io.Custom("DANCEOPD_BUCKET")
RoutesSocket = io.Custom("DANCEOPD_ROUTES")
StudentSocket = io.Custom("DANCEOPD_STUDENT")
