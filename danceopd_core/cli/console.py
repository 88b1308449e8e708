"""What the commands print besides their results."""

from __future__ import annotations

import sys

from ..errors import shown


def say(text: str) -> None:
    """A result, on standard output. What is not printable in it is escaped: names come from files of others."""
    print(shown(text))


def log(text: str) -> None:
    """A line of progress, on standard error, escaped likewise."""
    print(shown(f"danceopd: {text}"), file=sys.stderr, flush=True)


def encode_anything() -> None:
    """Lets the streams escape what their encoding does not have, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):  # a test's or a program's stream may have none
            reconfigure(errors="backslashreplace")


def quiet_libraries() -> None:
    """Switches off the progress bars of diffusers and transformers."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
