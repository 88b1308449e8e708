"""Generates the images of a short list of prompts in a benchmark's layout: the Evaluate node's work without ComfyUI."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..data.buckets import load_bucket
from ..data.csv_rows import Item
from ..data.images import Picture, open_picture, upright
from ..data.roots import Roots
from ..errors import Fault, InputError, refuse
from ..listening import listening
from ..lookup import lookup
from ..recipe.graph import ModelSpec
from ..recipe.schema import Bucket, Teacher
from ..runs.live.host import Host, step_counter, told_to
from ..runs.pictures.field_sampling import paired_items
from ..runs.plans.opening import DTYPES, open_teachers
from ..runs.plans.sources import graph_source
from .folder import EvalFolder, prompts_digest
from .generate import GenerationConfig, generate, plan_generation
from .geneval import geneval_prompt
from .layouts import LAYOUTS, BenchmarkPrompt, name_fault, path_collisions
from .settings import evaluation_settings

TASK = "short_list"


def eval_folder(output: Path, name: str) -> Path:
    """output/danceopd_eval/NAME; InputError for a name that is not a single folder's."""
    name = name.strip()
    if fault := name_fault(name):
        raise InputError(f"name: {fault}: give one folder's name, without the folders around it")
    return output / "danceopd_eval" / name


def short_list_items(
    prompts: Sequence[str],
    sources: Sequence[np.ndarray],
    bucket: Bucket | None,
    config: GenerationConfig,
    roots: Roots = None,
) -> Sequence[Item]:
    """The prompts with their sources, or the items of a bucket; InputError if both are given.

    roots: where the bucket's files have to lie; None: anywhere.
    """
    if bucket is None:
        return paired_items(prompts, sources) if prompts or sources else []
    if prompts or sources:
        raise InputError(
            "bucket: prompts or sources are given too: clear and disconnect them, or disconnect the bucket"
        )
    if bucket.encoded is not None:
        raise InputError(
            "bucket: it holds conditioning, and the scorers read prompts: wire in a Prompt Bucket, or type the prompts"
        )
    return load_bucket(bucket, config.seed, config.width, config.height, roots)


def benchmark_prompts(items: Sequence[Item], layout: str) -> list[BenchmarkPrompt]:
    """The items as a layout's prompts; for GenEval an item's text may be a whole line of its prompt file."""
    lookup(LAYOUTS, layout, "layout")
    if not items:
        raise InputError("prompts: there are none: write at least one line, or wire in a bucket")
    with_source = sum(item.source is not None for item in items)
    if layout == "geneval" and with_source:
        raise InputError("sources: GenEval is text-to-image: unplug the pictures, or choose the layout gedit")
    if layout == "gedit" and with_source < len(items):
        raise InputError("sources: GEdit-Bench needs one for each prompt: wire in pictures, or a bucket that has them")
    prompts = [(_geneval if layout == "geneval" else _gedit)(number, item) for number, item in enumerate(items)]
    refuse("prompts", (Fault("", line) for line in path_collisions(prompts, LAYOUTS[layout], 1)))
    return prompts


def _geneval(number: int, item: Item) -> BenchmarkPrompt:
    place = f"prompt {number + 1}"
    if not item.prompt.startswith("{"):
        tag = item.task or TASK
        line = json.dumps({"tag": tag, "include": [], "prompt": item.prompt})
        return BenchmarkPrompt(number, item.prompt, place, line, tag)
    try:
        return geneval_prompt(item.prompt, number, place)
    except InputError as error:
        raise InputError(f"prompts: {place} {error}: write plain text, or a whole line of GenEval's file") from error


def _gedit(number: int, item: Item) -> BenchmarkPrompt:
    place, task = f"prompt {number + 1}", item.task or TASK
    if fault := name_fault(task):
        raise InputError(f"prompts: the task of {place} {fault}")
    assert item.source is not None
    opened = partial(_opened, item.source)
    height, width = opened().shape[:2]
    return BenchmarkPrompt(number, item.prompt, place, "", task, "en", f"{number:05d}", opened, opened, (width, height))


def _opened(picture: Picture) -> np.ndarray:
    return np.asarray(upright(picture))


def evaluate(
    model: ModelSpec,
    student: Teacher,
    prompts: Sequence[BenchmarkPrompt],
    layout: str,
    config: GenerationConfig,
    path: Path,
    host: Host,
) -> torch.Tensor:
    """All images (n, H, W, 3) in [0, 1] of the list, generated now or before.

    Images of other sizes than the first's are cropped and resized to it; their files are not.
    """
    model_settings = {
        "model": model.folder, "components": model.components, "dtype": model.dtype, "quantise": model.quantise,
    }  # fmt: skip
    digest = prompts_digest(prompts)
    eval_settings = evaluation_settings(layout, config, digest, model_settings, student.lora, student.strength)
    folder = EvalFolder(path, eval_settings)
    folder.check()
    files = [LAYOUTS[layout](prompt, config.samples) for prompt in prompts]
    if not all(map(folder.finished, files)):
        with listening(told_to(host)):
            _generate(model, student, prompts, layout, config, folder, host)
    paths = [folder.path / path for of_prompt in files for path in of_prompt.pictures]
    width, height = upright(paths[0]).size
    return torch.from_numpy(np.stack([open_picture(path, width, height) for path in paths])).float() / 255


def _generate(
    model: ModelSpec,
    student: Teacher,
    prompts: Sequence[BenchmarkPrompt],
    layout: str,
    config: GenerationConfig,
    folder: EvalFolder,
    host: Host,
) -> None:
    source = graph_source(model, [])
    backbone = source.open(DTYPES[model.dtype], config.device)
    plan = plan_generation(prompts, LAYOUTS[layout], config, backbone.size_multiple)
    host.check()
    unguided = Teacher(lora=student.lora, strength=student.strength)  # guidance is applied by `generate`
    _, fields = open_teachers({"student": unguided}, backbone, weights=source.weights)
    total = config.steps * sum(not all(folder.has(job.path) for job in batch) for batch in plan.batches)
    for _ in generate(backbone, fields["student"], plan, config, folder, step_counter(host, total)):
        host.check()
