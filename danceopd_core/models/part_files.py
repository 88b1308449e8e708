"""Checks the files of a pipeline's parts before any library opens them: settings by their rules, and no code.

A model folder is data. transformers and diffusers run code that a configuration names (`auto_map`), fetch kernels by
their names and import packages for quantised weights; a folder that asks for any of it is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, shown
from ..outside import MIB, TEXT_LIMIT, read_json
from . import tokenizer_rules
from .part_rules import CONFIGS, REQUIRED
from .rules import Rules, faults

VOCABULARY_LIMIT = 64 * MIB
"""Of each file of a tokenizer."""
FILE_LIMIT = 4096
"""Of files in a part's folder."""
RUNS_CODE = (
    "auto_map", "trust_remote_code", "custom_pipelines", "custom_generate", "custom_objects", "use_kernels",
    "kernel_config", "attn_implementation", "_attn_implementation", "attn_implementation_internal",
    "_attn_implementation_internal", "experts_implementation", "_experts_implementation",
    "_experts_implementation_internal", "init_inputs",
)  # fmt: skip
"""Settings that name code, or kernels to fetch."""
HARMLESS = (None, False, "", "eager", "sdpa")
"""Values of those that name nothing of the kind."""
QUANTISED = ("quantization_config", "compression_config")
CONFIG_FILES = {
    "FlowMatchEulerDiscreteScheduler": "scheduler_config.json",
    "Qwen2VLImageProcessor": "preprocessor_config.json",
}
ADAPTER = "adapter_config.json"


def class_name(cls: Any) -> str:
    """The name of a class in the tables: the same for its variants in Rust or Python."""
    name: str = cls.__name__
    return name.removesuffix("Fast").removesuffix("Pil")


def part_settings(folder: Path, name: str) -> dict[str, Any]:
    """The checked configuration of a part's folder, to be opened as the class of this name.

    InputError, in one sentence that names the file and the settings, for what would run code, and for values that are
    not what the class takes.
    """
    _check_files(folder)
    if name in tokenizer_rules.CLASSES:
        return _tokenizer(folder, name)
    file = folder / CONFIG_FILES.get(name, "config.json")
    config = read_settings(file)
    found = config.get("_class_name", name)
    if found != name:
        raise InputError(
            f"{file} is of a {shown(str(found), 60)}, and a {name} is needed here: restore the one that the model came "
            "with"
        )
    missing = [f"{setting} is missing" for setting in REQUIRED.get(name, ()) if setting not in config]
    _refuse_faults(file, name, config, CONFIGS[name], missing)
    return config


def read_settings(file: Path) -> dict[str, Any]:
    """A JSON file of settings that names no code; InputError if it is absent, not a mapping, or does."""
    config = read_json(file, "the configuration")
    if not isinstance(config, dict):
        raise InputError(f"{file} is not a mapping of settings. Download the model again")
    for name, value in _walk(config):
        if name in RUNS_CODE and not (value in ([], {}) or any(value is one or value == one for one in HARMLESS)):
            raise InputError(
                f"{file} names code or kernels that would run ({name}), which no file of a model may: take that out, "
                "or give another copy of the model"
            )
        if name in QUANTISED and value not in (None, {}):
            raise InputError(
                f"{file} is of quantised weights ({name}), which are not read: give the model's unquantised weights"
            )
    return config


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name, inner
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner)


def _refuse_faults(
    file: Path, name: str, config: Mapping[str, Any], rules: Rules, more: list[str] | None = None
) -> None:
    found = [*(more or ()), *faults(config, rules)]
    if found:
        others = f", and {len(found) - 3} settings more" if len(found) > 3 else ""
        raise InputError(
            f"{file} is no configuration of a {name} that can be opened: {'; '.join(found[:3])}{others}. "
            "Download the model again"
        )


def _check_files(folder: Path) -> None:
    """InputError for what a library would hang on or must not follow: no regular file, huge settings, an adapter."""
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries, 1):
            if count > FILE_LIMIT:
                raise InputError(f"{folder} has more than {FILE_LIMIT} files: give the folder of a model")
            if entry.name == ADAPTER:
                raise InputError(
                    f"{folder / ADAPTER} names an adapter and the model below it, which are not followed: merge it "
                    "into the weights, or take it out"
                )
            try:
                status = entry.stat()
            except OSError:
                continue  # a link that leads nowhere is no file
            if stat.S_ISDIR(status.st_mode):
                if entry.name == "additional_chat_templates":
                    _check_files(folder / entry.name)
            elif not stat.S_ISREG(status.st_mode):
                raise InputError(f"{folder / entry.name} is not a regular file: download the model again")
            elif status.st_size > _limit(entry.name):
                raise InputError(
                    f"{folder / entry.name} has more than {_limit(entry.name) // MIB} MiB, the most that is read of "
                    "such a file"
                )


def _limit(name: str) -> int | float:
    if name in tokenizer_rules.VOCABULARIES:
        return VOCABULARY_LIMIT
    return TEXT_LIMIT if name.endswith((".json", ".txt", ".model", ".jinja")) else 2**60


def _tokenizer(folder: Path, name: str) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    config = read_settings(file) if file.exists() else {}
    _refuse_faults(file, name, config, tokenizer_rules.settings(name), tokenizer_rules.unknown(config))
    for other, rules in tokenizer_rules.OTHERS.items():
        if (folder / other).exists():
            _refuse_faults(folder / other, name, {"content": read_json(folder / other, "the file")}, {"content": rules})
    full = folder / "tokenizer.json"
    if full.exists():
        content = read_json(full, "the tokenizer", VOCABULARY_LIMIT)
        if fault := tokenizer_rules.fault(content):
            raise InputError(f"{full} is no tokenizer that can be opened: {fault}. Download the model again")
    elif not any((folder / vocabulary).exists() for vocabulary in tokenizer_rules.VOCABULARIES):
        raise InputError(f"{folder} holds no vocabulary of a {name}: download the model again, with all its parts")
    return config
