"""Trains a recipe for the Train node: found again, continued or begun; watched, stopped, saved. Knows no ComfyUI."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from shutil import copyfile
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from ..algorithm.fields import Conditioning
from ..algorithm.query import query_distribution
from ..data.buckets import load_bucket
from ..data.csv_rows import Item
from ..errors import InputError
from ..models.sampling import sample_pictures
from ..recipe.schema import Recipe
from ..weights.adapters import STUDENT
from .live_status import LiveStatus, plain
from .records import RunRecord, run_identity
from .session import TrainingSession, encode_items, open_session

PREVIEW = 128  # px, the least height of a live picture
WATCHED = 8  # samples a route, whose error is the validation's, as far as the batch size allows


class Host(Protocol):
    """Where the training takes place. check: raises `cancelled` if the user cancelled."""

    cancelled: type[BaseException]

    def check(self) -> None: ...
    def progress(self, value: int, total: int, picture: Image.Image | None = None) -> None: ...
    def memory_mb(self) -> float: ...


@dataclass(frozen=True, eq=False)
class Validation:
    """The validation: prompts, each with its source picture if sources are given; none: each route's first item.

    every: updates between two of them; 0: only at the end.
    """

    prompts: tuple[str, ...] = ()
    sources: tuple[np.ndarray, ...] = ()
    every: int = 0

    def __post_init__(self) -> None:
        if self.sources and len(self.sources) not in (1, len(self.prompts)):
            raise InputError(
                f"validation_sources: {len(self.sources)} pictures for {len(self.prompts)} validation_prompts: "
                "give one picture for all of them, or one each"
            )

    def items(self, recipe: Recipe) -> list[Item]:
        if not self.prompts:
            return [load_bucket(r.bucket, recipe.seed, recipe.width, recipe.height)[0] for r in recipe.routes]
        sources = self.sources * len(self.prompts) if len(self.sources) == 1 else self.sources
        return [Item(p, sources[i] if sources else None) for i, p in enumerate(self.prompts)]

    def digest(self) -> str:
        told = (self.prompts, [(source.shape, source.tobytes()) for source in self.sources])
        return hashlib.sha256(repr(told).encode()).hexdigest()


@dataclass(frozen=True)
class Job:
    recipe: Recipe
    run: RunRecord
    watch: Validation
    resume: bool
    workflow: Any = None


def train(job: Job, host: Host, page: LiveStatus, stop: threading.Event) -> None:
    """Leaves the trained student in the run's folder; whatever ends it, the page knows."""
    try:
        _train(job, host, page, stop)
    except BaseException as error:
        state = _ended(error, host)
        page.tell(state=state, message=str(error) if state == "failed" else "")
        if page.data["update"]:
            job.run.write("status.json", page.data)
        raise


def _train(job: Job, host: Host, page: LiveStatus, stop: threading.Event) -> None:
    recipe, run = job.recipe, job.run
    run.check_free()
    if str(run.lora) in (recipe.student.start, recipe.student.over):
        raise InputError(f"name: '{run.name}' is also the LoRA that the student starts from: choose another name")
    wanted = {**run_identity(recipe), "watch": job.watch.digest()}
    known, status = run.identity(), run.status()
    if known == wanted and status and status["state"] == "done" and run.folder.student.exists():
        if not run.lora.exists():
            run.lora.parent.mkdir(parents=True, exist_ok=True)
            copyfile(run.folder.student, run.lora)
        told = ("update", "losses", "validation", "pictures", "asked")
        kept = {name: status[name] for name in told if name in status}  # older runs did not tell where they asked
        page.tell(**kept, state="done", message="This run is finished already: nothing was trained.")
        return

    def tell(text: str) -> None:
        host.check()
        page.tell(message=text)

    opened = open_session(recipe, tell=tell)
    page.tell(asked=query_distribution(opened.trainer.method.query, opened.trainer.sigmas))
    items = job.watch.items(recipe)
    samples = encode_items(opened.backbone, items, recipe.width, recipe.height)
    going_on = job.resume and _goes_on(known, wanted, recipe) and run.folder.state.exists()
    if not going_on:
        run.set_aside()
    run.write("identity.json", wanted)
    run.write("workflow.json", job.workflow)
    run.folder.begin(opened, going_on)
    page.begin(opened.trainer.update)
    prompts = [item.prompt for item in items]
    _Loop(job, opened, samples, prompts, host, page, stop).run()


def _goes_on(known: dict[str, Any], wanted: dict[str, Any], recipe: Recipe) -> bool:
    """Whether the asked run is the known one, or has more steps of it (where the schedule does not see the steps)."""
    if (known.get("recipe"), known.get("contents")) != (wanted["recipe"], wanted["contents"]):
        return False
    steady = recipe.optimizer.schedule in ("constant", "constant_with_warmup")
    return known["steps"] == wanted["steps"] or (known["steps"] < wanted["steps"] and steady)


@dataclass(eq=False)
class _Loop:
    job: Job
    opened: TrainingSession
    samples: Conditioning
    prompts: list[str]
    host: Host
    page: LiveStatus
    stop: threading.Event
    validated: int = -1

    def run(self) -> None:
        try:
            state = self._updates()
            self._validate()
        except BaseException as error:
            with suppress(InputError, OSError):  # the error that ended the training is the one to tell
                self._save(_ended(error, self.host))
            raise
        self._save(state)
        self.page.tell(state=state)

    def _updates(self) -> str:
        recipe, trainer, host = self.job.recipe, self.opened.trainer, self.host
        host.progress(trainer.update, recipe.steps)
        for result in trainer:
            self.job.run.folder.add(result)
            self.page.step(result.update, result.losses, host.memory_mb())
            host.progress(result.update, recipe.steps)
            host.check()
            if self.stop.is_set():
                return "done" if trainer.update == recipe.steps else "stopped"
            if self.job.watch.every and trainer.update % self.job.watch.every == 0:
                self._validate()
            if trainer.update % recipe.save_every == 0 and trainer.update < recipe.steps:
                self._save("training")
            self.page.pause()
        return "done"

    def _validate(self) -> None:
        """The error on fixed samples, noises and states, and the pictures of fixed prompts and seeds."""
        recipe, trainer, run = self.job.recipe, self.opened.trainer, self.job.run
        if self.validated == trainer.update:
            return
        errors = plain(trainer.validate(min(WATCHED, recipe.batch)))
        self.host.check()
        shots = [_bytes(picture) for picture in self._pictures()]
        self.validated = trainer.update
        folder = run.path / "pictures"
        folder.mkdir(exist_ok=True)
        told = []
        for number, (prompt, shot) in enumerate(zip(self.prompts, shots, strict=True)):
            file = folder / f"{trainer.update:06d}-{number:02d}.png"
            Image.fromarray(shot).save(file)
            told.append({"prompt": prompt, "url": run.url(file.name)})
        run.add_validation(trainer.update, errors)
        self.page.tell(validation=errors, pictures=told, update=trainer.update)
        self.host.progress(trainer.update, recipe.steps, _row(shots))

    def _pictures(self) -> list[torch.Tensor]:
        recipe, opened = self.job.recipe, self.opened
        made = sample_pictures(
            opened.backbone,
            opened.fields[STUDENT],
            self.samples,
            [recipe.seed + row for row in range(len(self.samples))],
            steps=recipe.rollout_steps,
            width=recipe.width,
            height=recipe.height,
            batch=recipe.batch,
            device=opened.device,
            sigmas=opened.trainer.sigmas,
            step=lambda index, x: self.host.check(),
        )
        return [picture for batch in made for picture in batch]

    def _save(self, state: str) -> None:
        run = self.job.run
        run.folder.save(self.opened)
        self.opened.write_student(run.lora, datetime.now(timezone.utc).isoformat(timespec="seconds"))
        run.write("status.json", {**self.page.data, "state": state})


def _ended(error: BaseException, host: Host) -> str:
    return "cancelled" if isinstance(error, host.cancelled) else "failed"


def _bytes(picture: torch.Tensor) -> np.ndarray:
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _row(shots: list[np.ndarray]) -> Image.Image:
    """The pictures side by side, small ones enlarged without blur; RGB, which JPEG needs."""
    row = Image.fromarray(np.concatenate(shots, axis=1)).convert("RGB")
    times = max(1, PREVIEW // row.height)
    return row.resize((row.width * times, row.height * times), Image.Resampling.NEAREST)


def read_pictures(files: list[Path]) -> torch.Tensor:
    """(n, H, W, 3) in [0, 1], as ComfyUI's IMAGE is."""
    return torch.stack([torch.from_numpy(np.array(Image.open(file).convert("RGB"))).float() / 255 for file in files])
