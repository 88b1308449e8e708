"""What the commands print besides their results."""

from __future__ import annotations

import sys


def log(text: str) -> None:
    """A line of progress, on standard error."""
    print(f"danceopd: {text}", file=sys.stderr, flush=True)


def quiet_libraries() -> None:
    """Switches off the progress bars of diffusers and transformers."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
