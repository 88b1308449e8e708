"""The schema of a recipe: frozen dataclasses that describe a run. Nothing here opens a file or a model.
The text below a field is its documentation; `reference` renders docs/recipe.md from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from ..models.hub import is_hub_id
from .file_names import absolute_name
from .limits import Count, Fraction, NotNegative, Positive, Range, Seed, Text, Whole
from .parsing import build, plain
from .updating import Optimizer as Optimizer
from .updating import Query as Query
from .updating import Shift as Shift

MANY_STEPS = 16
"""Of a path, where nothing says otherwise."""
HELD_OUT = 0.01
FORMER_DEFAULTS = {"gradient_checkpointing": False, "rollout_steps": MANY_STEPS, "held_out": 0.0}
"""What settings meant in runs of releases that did not have them."""
NOT_IN_DIGEST = ("out", "device", "save_every", "keep_states", "offload", "memory", "private", "compile")
"""Settings that do not change the result of a run, or no more than rounding does."""


@dataclass(frozen=True)
class Teacher:
    """A frozen velocity field: the base model, a full checkpoint, a LoRA, or a LoRA on a checkpoint."""

    checkpoint: str | None = None
    """Full transformer weights: a safetensors file, a diffusers folder or `shapes:realism`; null: the base model."""
    lora: str | None = None
    """LoRA file, or `shapes:<name>` for one of the embedded world; null: no LoRA."""
    strength: float = 1.0
    """Factor of the LoRA; 1 is the LoRA as it was trained."""
    guidance: NotNegative = 1.0
    """Scale of classifier-free guidance, v_null + guidance (v - v_null); 1: no guidance, at half the cost."""
    negative: str = ""
    """Negative prompt of the guidance, the condition of v_null."""
    model: str | None = None
    """The teacher's own base model, as `model` of the run: any with the same latents, that is the same VAE, such as
    FLUX.1 for Z-Image. It is loaded besides the run's and encodes the route's prompts itself. null: the run's model."""


@dataclass(frozen=True)
class Stream:
    """A data set that is read row by row while a run draws from it; needs `pip install danceopd[stream]`."""

    source: Text
    """Hugging Face id (owner/name or owner/name@revision); or a local file or folder of parquet, JSONL, Arrow or
    WebDataset tar files."""
    split: Text = "train"
    """Split of the data set; of local files those with this word in their path, if there are any."""
    config: str | None = None
    """Configuration of a data set with an id that has several; null: its default."""
    prompt: Text = "prompt"
    """Column of the prompts; `json.caption` for what lies deeper."""
    source_image: str | None = None
    """Column of the pictures to edit; null: text-to-image."""
    target_image: str | None = None
    """Column of the target pictures, which only `offpolicy` reads; null: none."""
    buffer: Count = 256
    """Rows that are held in memory and shuffled among themselves; 1: the order of the data set."""


@dataclass(frozen=True)
class Bucket:
    """A source of prompts: exactly one of `csv`, `prompts`, `shapes`, `encoded` and `stream`."""

    csv: str | None = None
    """CSV or JSONL file in UTF-8 with the column prompt, and optionally task, source_image, target_image and
    caption_dict; or a folder of pictures with captions, or with a metadata.csv (docs/data.md)."""
    task: str | None = None
    """Only the rows of the CSV with this value in the column task; null: all rows."""
    prompts: tuple[Text, ...] = ()
    """The prompts themselves, for text-to-image."""
    shapes: str | None = None
    """Kind of items of the embedded world: `t2i`, `edit`, `local`, `global`, or one category such as `count`."""
    count: Whole = 0
    """Number of items of the embedded world; 0: 200 per category, 600 at most."""
    encoded: str | None = None
    """File of Bucket from Conditioning: what ComfyUI's encode nodes made, only for models that ComfyUI has loaded."""
    wildcards: Whole = 0
    """How often each prompt is taken with its wildcards, `{red|blue}` and `__file__`, drawn anew; 0: they are text."""
    wildcard_files: str | None = None
    """Folder of the files of wildcards: `__colour__` is a line of colour.txt. null: there are none."""
    stream: Stream | None = None
    """A data set that is read as it is drawn from, on the command line only."""


@dataclass(frozen=True)
class Route:
    """A teacher and the prompts that the student learns from it."""

    name: Text
    """Name of the route in logs and files; different for each route."""
    teacher: str | dict[str, float]
    """Name of a teacher; or several names with weights that sum to 1, for the weighted mean of their velocities."""
    bucket: Bucket
    """Prompts of the route: all of them with a source image (edits), or all without."""
    weight: NotNegative = 1.0
    """Relative probability of the route under `router: weighted` and `balanced`; 0, under every router: the route is
    only watched, that is validated and never trained."""

    @property
    def teachers(self) -> tuple[str, ...]:
        """The names of its teachers."""
        return (self.teacher,) if isinstance(self.teacher, str) else tuple(self.teacher)


@dataclass(frozen=True)
class LearnedRouter:
    """A classifier of prompt embeddings that assigns prompts without a route to the routes, once, before training."""

    bucket: Bucket
    """Prompts without a route. Those with a source image join a route of edits, others a route of text-to-image."""
    holdout: Annotated[float, Range(0, 1, above=True, below=True)] = 0.25
    """Fraction of each route's own prompts that is held out of the classifier's training to measure its accuracy."""


@dataclass(frozen=True)
class Student:
    """The LoRA that is trained."""

    start: Text = "fresh"
    """`fresh`: a new LoRA. Otherwise the LoRA file to continue from, which brings its rank, alpha and targets."""
    rank: Count = 128
    """Rank of a fresh LoRA."""
    alpha: Positive | None = None
    """Alpha of a fresh LoRA, which scales it by alpha / rank; null: the rank."""
    targets: tuple[Text, ...] = ()
    """Name endings of the linear layers that a fresh LoRA adapts, e.g. `to_q`; empty: the model family's default."""
    base_lora: str | None = None
    """LoRA file that stays frozen under a fresh student; the saved file contains both. null: none."""


@dataclass(frozen=True)
class Recipe:
    """A training run."""

    model: Text
    """Base model: a diffusers pipeline folder, a Hugging Face id (owner/name, or
    owner/name@revision), or `shapes` for the embedded model."""
    routes: tuple[Route, ...]
    """The teachers with their prompts; at least one."""
    teachers: dict[str, Teacher]
    """The teachers by name; each is used by at least one route."""
    student: Student = field(default_factory=Student)
    """The LoRA that is trained."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """The optimiser and its learning-rate schedule."""
    query: Query = field(default_factory=Query)
    """The states at which the teacher is queried."""
    method: str = "danceopd"
    """Distillation method: `danceopd`, `diffusionopd`, `flowopd`, or `offpolicy`, which trains on noised targets."""
    router: str = "weighted"
    """Choice of routes for an update: `weighted` (one at random, by weight), `round_robin` (one, in turn), `all`, or
    `balanced` (as weighted, with up to twice or half the weight for routes farther from or nearer to their
    teachers)."""
    steps: Count = 3000
    """Updates of the student; each uses `batch` x `accumulate` samples."""
    batch: Count = 1
    """Samples per forward pass."""
    accumulate: Count = 4
    """Batches per update, whose gradients are accumulated."""
    rollout_steps: Count | None = None
    """Steps of the student's path from noise to clean. null: as many as the model was distilled to (Z-Image-Turbo,
    Krea 2 Turbo and Qwen-Image-2.1-Turbo 8, FLUX.2 klein and FLUX.1 schnell 4), and 16 for every other."""
    width: Count = 1024
    """Width of the images in pixels; a multiple of the model's size step, mostly 16."""
    height: Count = 1024
    """Height of the images in pixels; as `width`."""
    seed: Seed = 0
    """Random seed of the fresh LoRA, the noise, the queries and the order of the prompts."""
    save_every: Count = 300
    """Updates between two checkpoints."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Type of the frozen network; the LoRA is always trained in float32."""
    device: Text = "auto"
    """PyTorch device, e.g. `cuda:1`; `auto`: CUDA, else MPS, else the CPU."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass: much less memory for about 7 % more work, since rollouts have no
    backward pass. null: on with `memory: auto` on a GPU, otherwise off."""
    offload: bool = False
    """Keep full-checkpoint teachers in host memory, with one at a time on the device."""
    out: Text = "danceopd-runs/run"
    """Folder of the run; relative to the current folder."""
    eta: Positive | None = None
    """`flowopd` only: noise scale of the stochastic path; null: the method's own, 0.7."""
    group: Count | None = None
    """`flowopd` only: paths per sample; null: the method's own, 16."""
    ode_kl_weight: Literal["dt2", "uniform"] = "dt2"
    """`diffusionopd` only: weight of a state, its own step size squared, or the same for every state."""
    anchor: NotNegative = 0.0
    """`flowopd` only: weight of the KL to the base model; 0: none."""
    components: dict[str, Text] = field(default_factory=dict)
    """Single safetensors files that replace weights of the model, by part: `transformer`, `vae`, `text_encoder`, ..."""
    sigmas: str | Shift = "model"
    """Sigma schedule of the path: `model` (the model's own scheduler), `paper` (a shift of 3), or {shift: number}."""
    quantise: Literal["int8", "fp8", "nf4"] | None = None
    """Weight type of the frozen transformer's linear layers; null: not quantised, unless `memory: auto` has to."""
    learned_router: LearnedRouter | None = None
    """Assigns prompts without a route to the routes; null: none."""
    keep_states: Count = 2
    """Training states that the run's folder keeps, newest first: if one is damaged, the run resumes from the next."""
    memory: Literal["auto", "manual"] = "auto"
    """`auto`: on a GPU, fits the run into its free memory, and takes less when it runs out of it; see docs/memory.md.
    `manual`: only what the other settings say."""
    aspects: Literal["one", "sources"] = "one"
    """`one`: all pictures are cropped to `width` x `height`. `sources`: an edit keeps the aspect ratio of its source,
    the nearest of eleven from 1:2 to 2:1 at the area of `width` x `height`; a batch has one size."""
    private: bool = False
    """Leave prompts, pictures, paths and the workflow out of the LoRA's metadata and of its model card."""
    compile: bool = False
    """Compile the transformer's blocks before the first update, which takes minutes and makes all updates faster. Only
    for diffusers models that are not quantised; needs triton on a GPU, a C++ compiler on a CPU."""
    held_out: Fraction = HELD_OUT
    """Share of each bucket that is kept out of training and validated on: 4 rows at least and 8 at most, of a bucket
    with 20 rows or more. Of a smaller one, and of a stream, none: validations measure on its first rows. 0: none."""

    @property
    def path_steps(self) -> int:
        """`rollout_steps`, or what it is for a model of many steps."""
        return self.rollout_steps or MANY_STEPS

    def to_dict(self) -> dict[str, Any]:
        """Every setting, as dicts, lists and plain values; `io.parse_recipe` returns the same recipe."""
        return plain(self)

    def buckets(self) -> tuple[Bucket, ...]:
        """Those of the routes, then the learned router's, if any."""
        own = tuple(route.bucket for route in self.routes)
        return own if self.learned_router is None else (*own, self.learned_router.bucket)

    def digest(self) -> str:
        """SHA-256 of the settings that change the result and differ from their default. Files count by path.

        Without the defaults, so that a setting added later does not change the digest of recipes that leave it out.
        """
        typed = build(Recipe, self.to_dict(), "", [])  # so that 1 and 1.0 are the same weight
        sparse = plain(located(typed, Path()), sparse=True)
        kept = {name: value for name, value in sparse.items() if name not in NOT_IN_DIGEST}
        kept["held_out"] = typed.held_out  # runs that held nothing out have no such setting
        for name, value in FORMER_DEFAULTS.items():
            if kept.get(name) == value:
                del kept[name]
        text = json.dumps(kept, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def located(recipe: Recipe, folder: Path) -> Recipe:
    """With absolute paths: a relative one is relative to `folder` if it exists there, else to the current folder."""

    def absolute(name: Any) -> Any:
        return absolute_name(name, folder) if name else name

    def model_name(name: Any) -> Any:
        return name if not name or is_hub_id(name, folder) else absolute(name)

    def with_path(bucket: Bucket) -> Bucket:
        files = {name: absolute(getattr(bucket, name)) for name in ("csv", "encoded", "wildcard_files")}
        stream = bucket.stream and replace(bucket.stream, source=model_name(bucket.stream.source))
        return replace(bucket, **files, stream=stream)

    student, learned = recipe.student, recipe.learned_router
    return replace(
        recipe,
        model=model_name(recipe.model),
        components={part: absolute(file) for part, file in recipe.components.items()},
        student=replace(
            student,
            start=student.start if student.start == "fresh" else absolute(student.start),
            base_lora=absolute(student.base_lora),
        ),
        teachers={
            name: replace(
                teacher,
                checkpoint=absolute(teacher.checkpoint),
                lora=absolute(teacher.lora),
                model=model_name(teacher.model),
            )
            for name, teacher in recipe.teachers.items()
        },
        routes=tuple(replace(route, bucket=with_path(route.bucket)) for route in recipe.routes),
        learned_router=learned and replace(learned, bucket=with_path(learned.bucket)),
    )
