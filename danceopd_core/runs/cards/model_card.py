"""The model card of a run: a README.md as Hugging Face reads it, beside the LoRA that it describes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from ...errors import InputError, encodable, shown
from ...files import write_text
from ...outside import read_text
from ...recipe.parsing import plain
from ..files.known_models import shown_name
from .card_facts import CardFacts, card_facts
from .sheet import write_sheet

CARD, SHEET, PUBLISHED_SHEET = "README.md", "samples.png", "samples-published.png"
MOST_PROMPTS = 5
"""Of a route's typed prompts that the recipe in the card shows."""
UNKNOWN = (
    "# base_model: set this to the id of the base model, such as owner/name\n"
    "# license: set this to that of the base model, where it binds what is made from it\n"
)
OWNER = "<!-- danceopd run: {} -->"
MARKS = str.maketrans({"<": "&lt;", ">": "&gt;"} | {mark: f"\\{mark}" for mark in "\\`|#[]"})
"""What Markdown or HTML would read in a text, as they show it."""


def write_card(folder: Path, title: str, file: Path | None = None, student: Path | None = None) -> None:
    """Writes the card of a run's folder there, or to `file`, with links to the run's pictures from where it lies.

    student: which of the run's it is about; None: the last. A folder whose files cannot be read keeps the card that it
    has: no run ends over its card.
    """
    place, sheet = file or folder / CARD, folder / (SHEET if student is None else PUBLISHED_SHEET)
    with suppress(InputError):
        facts = card_facts(folder, student)
        if facts.recipe.private:
            sheet.unlink(missing_ok=True)
        elif write_sheet(folder, facts.updates, sheet):
            facts = replace(facts, sheet=sheet)
        links = [_link(sample.file, place.parent) for sample in facts.samples]
        text = card_text(facts, title, links, _link(facts.sheet, place.parent) if facts.sheet else None)
        write_text(place, _sound(text))


def is_card_of(file: Path, runs: Sequence[str]) -> bool:
    """Whether a file is the card of one of these runs, and may be replaced."""
    try:
        text = read_text(file, "the model card")
    except InputError:
        return False
    return any(run and OWNER.format(run) in text for run in runs)


def card_text(facts: CardFacts, title: str, links: Sequence[str] = (), sheet: str | None = None) -> str:
    """The card. links: to the samples' pictures, in their order. sheet: the link to the facts' sheet."""
    parts = [
        _front(facts, links),
        f"# {title}\n\n{_opening(facts)}",
        _capabilities(facts),
        _samples(facts, links, sheet),
        _use(facts, title),
        _how(facts),
        OWNER.format(facts.run if facts.run.isalnum() else ""),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _front(facts: CardFacts, links: Sequence[str]) -> str:
    """The metadata that Hugging Face reads."""
    from huggingface_hub import ModelCardData

    tasks = list(dict.fromkeys(_pipeline_tag(one.task) for one in facts.capabilities))
    base = facts.base
    widget = [
        {"text": _sound(sample.prompt), "output": {"url": link}}
        for sample, link in zip(facts.samples, links, strict=True)
    ]
    data: Any = ModelCardData(
        base_model=base.repository if base else None,
        license=base.licence if base else "unknown",
        license_name=base.name or None if base else None,
        license_link=base.link or None if base else None,
        library_name="diffusers" if facts.for_diffusers else None,
        pipeline_tag="text-to-image" if "text-to-image" in tasks else tasks[0],
        tags=["lora", "template:sd-lora", "distillation", "danceopd", "comfyui", *tasks],
        widget=widget or None,
    )
    if base:
        data["base_model_relation"] = "adapter"
    return f"---\n{'' if base else UNKNOWN}{data.to_yaml()}\n---"


def _opening(facts: CardFacts) -> str:
    recipe, routes = facts.recipe, ", ".join(_words(one.name) for one in facts.capabilities)
    base = (
        f"[{facts.base.repository}](https://huggingface.co/{facts.base.repository})"
        if facts.base
        else _words(shown_name(recipe.model))
    )
    hint = (
        " (recognised by the name of its file: check it)" if facts.base else " (set `base_model` and `license` above)"
    )
    many = "One LoRA that holds" if len(facts.capabilities) > 1 else "A LoRA for"
    return (
        f"{many} {routes}, for {base}{hint}. The student was distilled on-policy from frozen teachers with "
        "[DanceOPD](https://arxiv.org/abs/2606.27377). Licences of the teachers' LoRAs may bind it too."
    )


def _capabilities(facts: CardFacts) -> str:
    recipe = facts.recipe
    what = "relative velocity error on prompts that are held out" if facts.validated else "training loss"
    lines = [
        f"## What it can do\n\nDistance to the teacher: {what}, before and after the training.\n",
        "| route | task | teacher | trigger | distance to the teacher | strength | steps | guidance |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in facts.capabilities:
        way = "-" if one.first is None or one.last is None else f"{one.first:.4g} → {one.last:.4g}"
        cells = [one.name, one.task, one.teacher, "none", way, "1", str(recipe.path_steps), "1"]
        lines.append(f"| {' | '.join(_words(cell) for cell in cells)} |")
    if facts.percent is not None and facts.best is not None:
        best = f"; the best of the run was {facts.best.percent:.0f} %, at update {facts.best.update}"
        lines.append(
            f"\nIn the mean over the routes it is at {facts.percent:.0f} % of the distance of the start, at update "
            f"{facts.updates}{'' if facts.best.update == facts.updates else best}."
        )
    return "\n".join(lines)


def _samples(facts: CardFacts, links: Sequence[str], sheet: str | None) -> str:
    if sheet:
        return (
            "## Samples\n\nFrom one noise for each prompt: the source, the teacher of its route, the student before "
            f"the training, and the student.\n\n![samples]({sheet})"
        )
    if not links:
        return ""
    lines = ["## Samples\n\nOf the student, from the last validation.\n", "| picture | prompt |", "|---|---|"]
    for number, (link, sample) in enumerate(zip(links, facts.samples, strict=True), 1):
        lines.append(f"| ![sample {number}]({link}) | {_words(sample.prompt)} |")
    return "\n".join(lines)


def _use(facts: CardFacts, title: str) -> str:
    comfy = f"## Use\n\n**ComfyUI**: put `{title}.safetensors` into `models/loras` and take Load LoRA at strength 1."
    if not facts.for_diffusers:  # over a model that ComfyUI had loaded: its names, and its positions of edits
        return comfy
    base = facts.base.repository if facts.base else "BASE MODEL"
    opener = "from_pretrained"  # in the reader's program: nothing is opened here
    return (
        f"{comfy}\n\n**diffusers**:\n\n```python\nimport torch\nfrom diffusers import DiffusionPipeline\n\n"
        f'pipe = DiffusionPipeline.{opener}("{base}", torch_dtype=torch.bfloat16)\n'
        f'pipe.load_lora_weights("{title}.safetensors")\n```'
    )


def _how(facts: CardFacts) -> str:
    recipe = facts.recipe
    lines = [
        f"## How it was made\n\n{facts.updates} updates of {recipe.batch * recipe.accumulate} samples by "
        f"`{recipe.method}`, {recipe.width} x {recipe.height} pixels, rollouts of {recipe.path_steps} steps, "
        f"{recipe.optimizer.name} at {recipe.optimizer.lr:g}, rank {facts.rank}, seed {recipe.seed}."
    ]
    if isinstance(verdict := facts.health.get("verdict"), str) and verdict:
        lines.append(f"Its weights, examined: {_words(verdict)}.")
    if not recipe.private:
        text = _recipe(facts)
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))  # longer than any in the text
        lines.append(f"The recipe, without folders:\n\n{fence}yaml\n{text}{fence}")
    return "\n\n".join(lines)


def _recipe(facts: CardFacts) -> str:
    tree = plain(facts.recipe, sparse=True)
    for name in ("out", "device"):
        tree.pop(name, None)
    tree["model"] = shown_name(facts.recipe.model)
    return yaml.safe_dump(_without_folders(tree), sort_keys=False, allow_unicode=True, width=110)


def _without_folders(value: Any, key: str = "") -> Any:
    """Paths as the names of their files, and long lists of prompts cut."""
    if isinstance(value, Mapping):
        return {name: _without_folders(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        shown = [_without_folders(inner, key) for inner in value]
        more = len(shown) - MOST_PROMPTS
        return [*shown[:MOST_PROMPTS], f"... and {more} more"] if key == "prompts" and more > 0 else shown
    is_path = isinstance(value, str) and key != "prompts" and Path(value).is_absolute()
    return Path(value).name if is_path else value


def _link(file: Path, place: Path) -> str:
    return quote(Path(os.path.relpath(file, place)).as_posix(), errors="replace")


def _pipeline_tag(task: str) -> str:
    return "image-to-image" if task == "edit" else "text-to-image"


def _sound(text: str) -> str:
    """Text that a file can hold."""
    return text if encodable(text) else shown(text)


def _words(text: str) -> str:
    """Text from outside in one line of Markdown, as itself."""
    return " ".join(_sound(text).split()).translate(MARKS)
