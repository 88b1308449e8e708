"""What the files of a tokenizer may hold. Its settings are arguments of its class, so most names are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .rules import SWITCH, TEXT, Rule, Rules, exactly, number, one_of, optional, several, whole

CLASSES = ("Qwen2Tokenizer", "CLIPTokenizer", "T5Tokenizer")
VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "spiece.model")
GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Classes that transformers names where a tokenizer is described by its tokenizer.json alone."""
MOST_TOKENS = 10_000
"""Added to a vocabulary."""
FLAGS = {"lstrip", "rstrip", "normalized", "single_word", "special"}
READS_A_FILE = re.compile(r".*_(file|files|object|inputs)|vocab|merges|post_processor")
NAMES_NOTHING = ("special_tokens_map_file",)
"""A record of where it once came from, which no release opens."""
QUANTIFIED_GROUP = re.compile(r"\)\s*(?:[*+]|\{\d)|\\[1-9k]")
"""In a regular expression: a repeated group, on which matching may take for ever, or a reference back."""


def _is_token(value: Any) -> bool:
    if isinstance(value, dict):
        flags = value.keys() - {"content", "__type", "id"}
        return (
            isinstance(value.get("content"), str)
            and flags <= FLAGS
            and all(isinstance(value[flag], bool) for flag in flags)
            and value.get("__type", "AddedToken") == "AddedToken"
        )
    return isinstance(value, str) and len(value) < 4096


TOKEN = optional(Rule("a token", _is_token))
TOKENS = Rule(
    f"at most {MOST_TOKENS} tokens",
    lambda value: (
        isinstance(value, list | dict)
        and len(value) <= MOST_TOKENS
        and all(map(_is_token, value.values() if isinstance(value, dict) else value))
    ),
)
NUMBERED = Rule(
    f"at most {MOST_TOKENS} tokens by number",
    lambda value: (
        isinstance(value, dict)
        and len(value) <= MOST_TOKENS
        and all(
            re.fullmatch(r"\d{1,7}", key) and isinstance(token, dict) and _is_token(token)
            for key, token in value.items()
        )
    ),
)
NUMBERS = Rule(
    f"at most {MOST_TOKENS} tokens with their numbers",
    lambda value: (
        isinstance(value, dict)
        and len(value) <= MOST_TOKENS
        and all(
            isinstance(index, int) and not isinstance(index, bool) and 0 <= index < 10**7 for index in value.values()
        )
    ),
)
MAP = Rule(
    "a mapping of tokens",
    lambda value: (
        isinstance(value, dict) and all(part is None or _is_token(part) or TOKENS.fits(part) for part in value.values())
    ),
)
OTHERS: dict[str, Rule] = {"added_tokens.json": NUMBERS, "special_tokens_map.json": MAP}
"""The files beside tokenizer_config.json."""

SETTINGS: Rules = {
    "added_tokens_decoder": NUMBERED,
    "additional_special_tokens": optional(TOKENS),
    "extra_special_tokens": optional(TOKENS),
    "model_specific_special_tokens": optional(TOKENS),
    "model_max_length": optional(number(1, 1e31)),
    "extra_ids": whole(0, 1000),
    "backend": optional(one_of("tokenizers")),
    "clean_up_tokenization_spaces": optional(SWITCH),
    "split_special_tokens": SWITCH,
    "legacy": optional(SWITCH),
    "padding_side": one_of("left", "right"),
    "truncation_side": one_of("left", "right"),
    "errors": one_of("replace", "strict", "ignore"),
    "add_prefix_space": optional(SWITCH),
    "add_bos_token": optional(SWITCH),
    "add_eos_token": optional(SWITCH),
    "sp_model_kwargs": optional(exactly({})),
    "model_input_names": several(one_of("input_ids", "attention_mask", "token_type_ids"), 0, 3),
    "chat_template": optional(Rule("text, or a list of texts", lambda value: isinstance(value, str | list | dict))),
}


def settings(name: str) -> Rules:
    """The rules of tokenizer_config.json for the class of this name."""
    return {**SETTINGS, "tokenizer_class": optional(one_of(name, f"{name}Fast", *GENERIC))}


def unknown(config: Mapping[str, Any]) -> list[str]:
    """A line for each setting without a rule that is more than a plain value, or that would open another file."""
    return list(_unknown(config))


def _unknown(config: Mapping[str, Any]) -> Iterator[str]:
    for name, value in config.items():
        if name in SETTINGS or name in NAMES_NOTHING or name == "tokenizer_class" or value is None:
            continue
        if name.endswith("_token"):
            if not _is_token(value):
                yield f"{name} is no token"
        elif READS_A_FILE.fullmatch(name):
            yield f"{name} is refused"
        elif not (isinstance(value, bool | int | float) or TEXT.fits(value)) and value not in ([], {}):
            yield f"{name} is unknown, and no plain value"


def fault(content: Any) -> str:
    """What keeps a tokenizer.json from being opened, or ""."""
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        return "its model has no vocabulary"
    tokens = content.get("added_tokens", [])
    if (
        not isinstance(tokens, list)
        or len(tokens) > MOST_TOKENS
        or not all(
            isinstance(token, dict) and _is_token(token) and whole(0, 10**7).fits(token.get("id")) for token in tokens
        )
    ):
        return f"added_tokens is no list of at most {MOST_TOKENS} tokens"
    for key in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        for pattern in _expressions(content.get(key)):
            if len(pattern) > 1000 or QUANTIFIED_GROUP.search(pattern):
                return f"the regular expression of its {key} may take for ever"
    return ""


def _expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("Regex"), str):
            yield value["Regex"]
        for inner in value.values():
            yield from _expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _expressions(inner)
