"""The scale of a LoRA file's layers: from alpha tensors, or from the peft settings that come with the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, shown
from ..outside import parse_json, read_json
from .patterns import Pattern, PatternTable
from .safetensors_io import listed

CHANGED_BASES = ("pissa", "olora", "corda", "loftq", "eva_merged")
"""Initialisations of peft that change the base model too, by the beginning of their name."""
OTHER_KINDS = {"use_dora": "DoRA", "use_qalora": "QALoRA", "alora_invocation_tokens": "aLoRA", "layer_replication": "a "
               "LoRA of replicated layers", "target_parameters": "a LoRA of single parameters"}  # fmt: skip
"""Settings of peft with which a file is no plain LoRA."""
MOST_CONFIGS = 20
"""Files of JSON beside a LoRA of which one may be its configuration; a folder with more is not one LoRA's."""


@dataclass(frozen=True)
class PeftSettings:
    """What peft's settings say of a LoRA's layers, by their paths in the network that peft wrapped.

    alpha, rank: of layers that no pattern matches; None: not stated. rslora: alpha is divided by the root of the rank.
    """

    alpha: float | None = None
    rank: int | None = None
    rslora: bool = False
    alphas: PatternTable = field(default_factory=lambda: PatternTable({}))
    ranks: PatternTable = field(default_factory=lambda: PatternTable({}))
    targets: tuple[str, ...] | Pattern | None = None
    excluded: tuple[str, ...] | Pattern = ()
    indices: frozenset[int] | None = None
    stacks: tuple[str, ...] = ()

    def scale(self, path: str, rank: int) -> float:
        """Of a layer of this path and rank; where no alpha is stated it is the rank, and the scale 1."""
        alpha = self.alphas.get(path, self.alpha)
        return 1.0 if alpha is None else alpha / (math.sqrt(rank) if self.rslora else rank)

    def rank_of(self, path: str) -> int | None:
        """The stated rank of a layer."""
        rank: int | None = self.ranks.get(path, self.rank)
        return rank

    def leave_out(self, path: str) -> bool:
        """Whether peft would not adapt the layer, whatever the file holds."""
        if self.targets is None:
            return False
        if _named(self.excluded, path) or not _named(self.targets, path):
            return True
        if self.indices is None or isinstance(self.targets, Pattern):
            return False
        return _index(path, self.stacks) not in self.indices


def peft_settings(path: Path, metadata: Mapping[str, str], layered: bool) -> PeftSettings:
    """The settings of a LoRA file from its diffusers metadata or peft's adapter_config.json; empty without either.

    layered: whether the file's keys are those of a model that peft wrapped. InputError if the settings cannot be read,
    if they are of another kind of adapter, or if the initialisation that they name also changes the base model.
    """
    if "lora_adapter_metadata" in metadata:
        what = f"the LoRA settings that came with {path}"
        return _checked(path, parse_json(metadata["lora_adapter_metadata"], what), what, peft=False)
    config = _config_of(path, layered)
    if config is None:
        return PeftSettings()
    what = f"the LoRA settings that came with {path}, {config.name},"
    return _checked(path, read_json(config, "the LoRA settings"), what, peft=True)


def _config_of(path: Path, layered: bool) -> Path | None:
    """The adapter_config.json of a LoRA file, under that name or, where it can only be its own, another."""
    usual = path.with_name("adapter_config.json")
    if path.stem == "adapter_model" and usual.is_file():
        return usual
    ends = (".json", "_config.json", ".adapter_config.json", "_adapter_config.json")
    for named in (path.with_name(path.stem + end) for end in ends):
        if _is_config(named):
            return named
    if len(list(path.parent.glob("*.safetensors"))) == 1:
        beside = sorted(path.parent.glob("*.json"))
        configs = [file for file in beside if _is_config(file)] if len(beside) <= MOST_CONFIGS else []
        if len(configs) > 1:
            raise InputError(
                f"{path} has several LoRA settings beside it ({listed(file.name for file in configs)}): leave its own"
            )
        return configs[0] if configs else None
    if layered and usual.is_file() and not path.with_name("adapter_model.safetensors").exists():
        raise InputError(
            f"{path} is one of several LoRAs beside one adapter_config.json, which is of one of them: put it into a "
            "folder of its own with that file, or leave the file out if it is of another"
        )
    return None


def _is_config(file: Path) -> bool:
    try:
        found = read_json(file, "the LoRA settings") if file.is_file() else None
    except InputError:
        return False
    return isinstance(found, dict) and "peft_type" in found


def _checked(path: Path, found: Any, what: str, peft: bool) -> PeftSettings:
    try:
        settings = {key.removeprefix("transformer."): value for key, value in found.items()}
        kind = settings.get("peft_type") or "LORA"
        initialisation = str(settings.get("init_lora_weights"))
        read = PeftSettings(
            alpha=_number(settings["lora_alpha"]) if "lora_alpha" in settings else None,
            rank=_rank(settings["r"]) if settings.get("r") is not None else None,
            rslora=bool(settings.get("use_rslora")),
            alphas=_table(settings, "alpha_pattern", _number),
            ranks=_table(settings, "rank_pattern", _rank),
        )
        if peft:
            read = PeftSettings(**{**vars(read), **_selection(settings)})
    except InputError as error:
        raise InputError(f"{what} cannot be used: {error}") from None
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(f"{what} cannot be read: {shown(repr(error), 120)}") from error
    others = [name for key, name in OTHER_KINDS.items() if settings.get(key)]
    if kind != "LORA" or others:
        name = others[0] if kind == "LORA" else shown(str(kind), 30)
        raise InputError(f"{path} is {name}, as its settings say, and no plain LoRA: give a plain LoRA")
    if initialisation.lower().startswith(CHANGED_BASES):
        raise InputError(
            f"{path} was initialised with {shown(initialisation, 60)}, which changes the base model too: save it "
            "converted to a plain LoRA (peft's path_initial_model_for_weight_conversion)"
        )
    return read


def _selection(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Which layers peft adapts, as arguments of `PeftSettings`."""
    targets, indices = settings.get("target_modules"), settings.get("layers_to_transform")
    stacks = settings.get("layers_pattern") or ()
    stacks = (stacks,) if isinstance(stacks, str) else tuple(stacks)
    if not all(isinstance(stack, str) and stack.replace("_", "").replace(".", "").isalnum() for stack in stacks):
        raise InputError("their layers_pattern is a regular expression, which is not read: name the list of layers")
    if indices is not None:
        indices = frozenset([indices] if isinstance(indices, int) else map(int, indices)) or None
    return {
        "targets": None if targets in (None, "all-linear") else _names("target_modules", targets),
        "excluded": _names("exclude_modules", settings.get("exclude_modules") or ()),
        "indices": indices,
        "stacks": stacks,
    }


def _names(key: str, value: Any) -> tuple[str, ...] | Pattern:
    if not isinstance(value, str):
        return tuple(map(str, value))
    try:
        return Pattern(value)
    except InputError as error:
        raise InputError(f"their {key} {error}: give a list of names") from None


def _table(settings: Mapping[str, Any], key: str, read: Any) -> PatternTable:
    values = {pattern: read(value) for pattern, value in (settings.get(key) or {}).items()}
    try:
        return PatternTable(values)
    except InputError as error:
        raise InputError(f"their {key} {error}: write the names of the layers") from None


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"an alpha of {number}")
    return number


def _rank(value: Any) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"a rank of {value!r}")
    return int(value)


def _named(names: tuple[str, ...] | Pattern, path: str) -> bool:
    if isinstance(names, Pattern):
        return names.covers(path)
    return any(path == name or path.endswith(f".{name}") for name in names)


def _index(path: str, stacks: tuple[str, ...]) -> int | None:
    """The number of the block that a layer is in: the first one, or the one behind one of these names."""
    parts = path.split(".")
    if not stacks:
        return next((int(part) for part in parts[2:-1] if part.isdecimal()), None)
    for stack in stacks:
        length = stack.count(".") + 1
        for start in range(len(parts) - length - 1):
            if ".".join(parts[start : start + length]) == stack and parts[start + length].isdecimal():
                return int(parts[start + length])
    return None
