"""What ComfyUI asks nodes before it queues a prompt: whether the files of weights that widgets name can be used.

The header of a file tells; all nodes are asked, so that every fault is shown at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..danceopd_core.errors import InputError
from ..danceopd_core.shapes import is_embedded
from ..danceopd_core.weights.full_checkpoints import check_weights
from ..danceopd_core.weights.lora_header import check_lora
from ._comfy import chosen


def lora_check(widget: str, choices: Mapping[str, str | None], name: Any) -> str:
    """What keeps the LoRA of a widget from being used with any model; empty if nothing does."""
    return _check(widget, choices, name, check_lora)


def weights_check(widget: str, choices: Mapping[str, str | None], name: Any) -> str:
    """The same for the weights of a transformer."""
    return _check(widget, choices, name, lambda path: check_weights(None, path))


def faults_of(*faults: str) -> bool | str:
    """What `validate_inputs` returns: True, or the faults as one text."""
    return "; ".join(filter(None, faults)) or True


def _check(widget: str, choices: Mapping[str, str | None], name: Any, check: Callable[[Path], None]) -> str:
    if name is None:  # another node gives it
        return ""
    try:
        file = chosen(dict(choices), name, widget)
        if file and not is_embedded(file):
            check(Path(file))
    except InputError as error:
        told = str(error)
        return told if told.startswith(f"{widget}:") else f"{widget}: {told}"
    return ""
