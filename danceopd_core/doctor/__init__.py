"""Examines LoRAs: what their weights hold, which loaders take them, what they change, and a verdict in words."""

from __future__ import annotations
