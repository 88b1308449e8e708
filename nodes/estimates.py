"""Answers what a Train node of a prompt will take, without running any of it."""

from __future__ import annotations

from typing import Any

from ..danceopd_core.errors import InputError
from ..danceopd_core.outside import parse_json
from ._comfy import output_folder
from .requests import Refusal

PROMPT_LIMIT = 4 * 2**20
"""Bytes of a prompt."""
NOTHING = {"memory": None, "seconds": None, "basis": "shapes", "text": ""}
"""Of a prompt of which nothing can be told before it runs."""


def estimated(body: bytes) -> dict[str, Any]:
    """The answer to {"prompt": ..., "node": ...}: bytes, seconds, what they are known from, and a sentence.

    Refusal of another body, InputError for what is wrong with the prompt.
    """
    prompt, node = _asked(body)
    from ..danceopd_core.runs.forecast import forecast
    from .prompt_reading import Unknown, recipe_in

    try:
        found = forecast(recipe_in(prompt, node), output_folder())
    except Unknown:
        return NOTHING
    except InputError:
        raise
    except (RuntimeError, MemoryError) as error:  # of libraries, for sizes that no model has
        raise InputError(f"nothing can be reckoned for these sizes ({type(error).__name__})") from None
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        raise InputError("the prompt cannot be read: its nodes are not as ComfyUI queues them") from None
    return {"memory": found.memory, "seconds": found.seconds, "basis": found.basis, "text": found.text()}


def _asked(body: bytes) -> tuple[dict[str, Any], str]:
    try:
        found = parse_json(body.decode(), "the request")
    except (InputError, UnicodeDecodeError):
        found = None
    prompt = found.get("prompt") if isinstance(found, dict) else None
    node = found.get("node") if isinstance(found, dict) else None
    if not isinstance(prompt, dict) or isinstance(node, bool) or not isinstance(node, str | int):
        raise Refusal(400, 'send {"prompt": {id: node}, "node": id}')
    return prompt, str(node)
