"""The schema of a recipe: frozen dataclasses that describe a run. Nothing here opens a file or a model."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from ..models.hub import is_hub_id
from ..shapes import is_embedded
from .parsing import Range, build, filled, plain

Text = Annotated[str, filled]
Count = Annotated[int, Range(1, 10**9)]
Whole = Annotated[int, Range(0, 10**9)]
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1, below=True)]
Sigma = Annotated[float, Range(0, 1)]
Seed = Annotated[int, Range(0, 2**63 - 1)]

Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
"""The schedules of diffusers that need no more than the run's length and its warmup."""


@dataclass(frozen=True)
class Teacher:
    """A frozen velocity field: the base model, a full checkpoint, a LoRA, or a LoRA over a checkpoint.

    checkpoint: a safetensors file, a diffusers transformer folder, or `shapes:realism`; None: the base model.
    lora: a LoRA file, or `shapes:<name>`. strength: its factor. guidance: v_null + guidance (v - v_null); 1
    asks no null. negative: the prompt of the null.
    """

    checkpoint: str | None = None
    lora: str | None = None
    strength: float = 1.0
    guidance: NotNegative = 1.0
    negative: str = ""


@dataclass(frozen=True)
class Bucket:
    """Where a route's prompts come from: exactly one of csv, prompts and shapes.

    csv: a file with the columns prompt, task, source_image, target_image and caption_dict; task: only those
    rows of it. shapes: a kind of the embedded world (`data.KINDS`); count: how many in all, 0 for a fair number.
    """

    csv: str | None = None
    task: str | None = None
    prompts: tuple[Text, ...] = ()
    shapes: str | None = None
    count: Whole = 0


@dataclass(frozen=True)
class Route:
    """A teacher bound to its prompts. A teacher by weights, which sum to 1, is the mix of their velocities."""

    name: Text
    teacher: str | dict[str, float]
    bucket: Bucket
    weight: NotNegative = 1.0


@dataclass(frozen=True)
class LearnedRouter:
    """Prompts without a route: each joins the one that a classifier of prompt embeddings gives it (`joining`).

    bucket: these prompts. The classifier learns from the routes' own; holdout: the part of them that it is only
    tested on.
    """

    bucket: Bucket
    holdout: Annotated[float, Range(0, 1, above=True, below=True)] = 0.25


@dataclass(frozen=True)
class Student:
    """What is trained: a fresh LoRA of this rank, alpha (None: the rank) and targets (none: the family's own),
    or the LoRA file to start from, which has its own.

    over: a LoRA file that stays frozen under a fresh student; what is saved is both, in one file.
    """

    start: Text = "fresh"
    rank: Count = 128
    alpha: Positive | None = None
    targets: tuple[Text, ...] = ()
    over: str | None = None


@dataclass(frozen=True)
class Optimizer:
    """AdamW. clip: the largest norm of the gradient. warmup: in updates. ema: decay of averaged weights, 0: none."""

    lr: Positive = 2e-4
    weight_decay: NotNegative = 0.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    clip: Positive = 1.0
    schedule: Schedule = "constant"
    warmup: Whole = 0
    ema: Fraction = 0.0


@dataclass(frozen=True)
class Query:
    """Which k states of a path are asked about: by index with a bias of `query.QUERIES`, or uniformly in a
    range of sigma. Methods that ask about every state have none."""

    bias: str = "low"
    k: Count = 1
    sigma: tuple[Sigma, Sigma] | None = None


@dataclass(frozen=True)
class Shift:
    """A grid of evenly spaced sigmas, shifted: above 1 it dwells near the noise (`flow.linear_sigmas`)."""

    shift: Positive


@dataclass(frozen=True)
class Recipe:
    """A run.

    model: a diffusers pipeline folder, `shapes` for the embedded model, or a Hugging Face id, owner/name.
    components: by part (`backbones.COMPONENTS`), a file whose weights stand for the model's. quantise: the frozen
    transformer's linear layers, by a name of `quantise.QUANTISATIONS`. steps: updates, each of
    `batch` x `accumulate` samples. rollout_steps: of a path. save_every: in updates. offload: full-checkpoint teachers
    wait in host memory, and one at a time is on the device. out: the run's folder. eta, group (None: the method's own)
    and anchor belong to Flow-OPD, ode_kl_weight to DiffusionOPD. sigmas: a name of `SIGMA_SCHEDULES` or a shift;
    any but "model" takes the place of the model's scheduler, dynamic shifting too. router: how an update
    chooses among the routes, a name of `routing.ROUTERS`. learned_router: gives routes to prompts that have none.
    """

    model: Text
    routes: tuple[Route, ...]
    teachers: dict[str, Teacher]
    student: Student = field(default_factory=Student)
    optimizer: Optimizer = field(default_factory=Optimizer)
    query: Query = field(default_factory=Query)
    method: str = "danceopd"
    router: str = "weighted"
    steps: Count = 3000
    batch: Count = 1
    accumulate: Count = 4
    rollout_steps: Count = 16
    width: Count = 1024
    height: Count = 1024
    seed: Seed = 0
    save_every: Count = 300
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    device: Text = "auto"
    gradient_checkpointing: bool = False
    offload: bool = False
    out: Text = "danceopd-runs/run"
    eta: Positive | None = None
    group: Count | None = None
    ode_kl_weight: Literal["dt2", "uniform"] = "dt2"
    anchor: NotNegative = 0.0
    components: dict[str, Text] = field(default_factory=dict)
    sigmas: str | Shift = "model"
    quantise: Literal["int8", "fp8", "nf4"] | None = None
    learned_router: LearnedRouter | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything, as dicts, lists and plain values; `io.parse_recipe` gives the same recipe back."""
        return plain(self)

    def buckets(self) -> tuple[Bucket, ...]:
        """Those of the routes, then the learned router's, if there is one."""
        own = tuple(route.bucket for route in self.routes)
        return own if self.learned_router is None else (*own, self.learned_router.bucket)

    def digest(self) -> str:
        """SHA-256 of all that changes the result: not `out`, `device`, `save_every`, `offload`. Files count by path."""
        typed = build(Recipe, self.to_dict(), "", [])  # so that 1 and 1.0 are the same weight
        told = plain(located(typed, Path()))
        for name in ("out", "device", "save_every", "offload"):
            del told[name]
        for holder, name, default in (
            (told["student"], "over", None),
            (told, "components", {}),
            (told, "sigmas", "model"),
            (told, "quantise", None),
            (told, "learned_router", None),
        ):
            if holder[name] == default:  # settings that came later: recipes without them keep their digest
                del holder[name]
        text = json.dumps(told, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def located(recipe: Recipe, folder: Path) -> Recipe:
    """With absolute paths: a relative one is meant from `folder` if it exists there, else from the current folder."""

    def absolute(name: str | None) -> Any:
        if not name or is_embedded(name):
            return name
        name = os.path.expanduser(name)
        near = folder / name
        return os.path.abspath(near if os.path.exists(near) else name)

    def with_path(bucket: Bucket) -> Bucket:
        return replace(bucket, csv=absolute(bucket.csv))

    student, learned = recipe.student, recipe.learned_router
    return replace(
        recipe,
        model=recipe.model if is_hub_id(recipe.model, folder) else absolute(recipe.model),
        components={part: absolute(file) for part, file in recipe.components.items()},
        student=replace(
            student,
            start=student.start if student.start == "fresh" else absolute(student.start),
            over=absolute(student.over),
        ),
        teachers={
            name: replace(teacher, checkpoint=absolute(teacher.checkpoint), lora=absolute(teacher.lora))
            for name, teacher in recipe.teachers.items()
        },
        routes=tuple(replace(route, bucket=with_path(route.bucket)) for route in recipe.routes),
        learned_router=learned and replace(learned, bucket=with_path(learned.bucket)),
    )
