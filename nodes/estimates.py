"""Answers what a Train node of a prompt will take, without running any of it."""

from __future__ import annotations

from typing import Any

from ..danceopd_core.errors import InputError, shown
from ..danceopd_core.outside import parse_json
from ._comfy import output_folder
from .requests import Refusal

PROMPT_LIMIT = 4 * 2**20
"""Bytes of a prompt."""
NOTHING = {"memory": None, "seconds": None, "basis": "shapes", "text": "", "reason": ""}
"""Of a prompt of which nothing can be told before it runs."""
LONGEST = 2000
"""Letters of a reason: a prompt may name what it likes."""
TRAIN = "DanceOPD_Train"
UNREADABLE = "the prompt cannot be read: its nodes are not as ComfyUI queues them"


def estimated(body: bytes) -> dict[str, Any]:
    """The answer to {"prompt": ..., "node": ...}: bytes, seconds, what they are known from, and a sentence.

    reason: why there is no estimate, of a graph that cannot train as it is. Refusal of another body, or of a prompt
    that ComfyUI would not queue.
    """
    prompt, node = _asked(body)
    try:
        return {**NOTHING, **_forecast(prompt, node)}
    except InputError as error:
        return {**NOTHING, "reason": shown(str(error), LONGEST)}


def _forecast(prompt: dict[str, Any], node: str) -> dict[str, Any]:
    from ..danceopd_core.runs.front.forecast import forecast
    from .prompt_reading import Unknown, recipe_in

    try:
        found = forecast(recipe_in(prompt, node), output_folder())
    except Unknown:
        return {}
    except InputError:
        raise
    except (RuntimeError, MemoryError) as error:  # of libraries, for sizes that no model has
        raise InputError(f"nothing can be reckoned for these sizes ({type(error).__name__})") from None
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        raise Refusal(422, UNREADABLE) from None
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
    if not all(isinstance(one, dict) and isinstance(one.get("inputs"), dict) for one in prompt.values()):
        raise Refusal(422, UNREADABLE)
    if prompt.get(str(node), {}).get("class_type") != TRAIN:
        raise Refusal(422, "node: the prompt has no Train Student LoRA of this id")
    return prompt, str(node)
