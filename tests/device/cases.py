"""Trainings of every family, method and kind of teacher, on any device: the dummy one, a real card, the CPU.

`open_session`, the loop and the run's folder are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from danceopd_core.models import qwen21
from danceopd_core.models.qwen import EDITING
from danceopd_core.models.registry import open_backbone
from danceopd_core.recipe.io import parse_recipe
from danceopd_core.recipe.schema import Recipe
from danceopd_core.runs.files import stored_samples
from danceopd_core.runs.training.loop import train_loop
from danceopd_core.runs.training.run_dir import RunFolder
from danceopd_core.runs.training.session import TrainingSession, open_session
from danceopd_core.runs.training.validation import validation_pictures
from danceopd_core.weights.lora_io import lora_metadata, write_lora

from ..loras import random_lora
from ..models.test_all_families import SAVED
from ..tiny import randomize, save_twin
from .dummy_cuda import Device

SIZE = 32
Settings = dict[str, object]
CASES: dict[str, Settings] = {
    "danceopd": {"offload": True, "query": {"bias": "uniform", "k": 2}, "steps": 2},
    "diffusionopd": {"method": "diffusionopd", "dtype": "bfloat16", "gradient_checkpointing": False},
    "flowopd": {"method": "flowopd", "group": 2, "anchor": 0.04, "dtype": "bfloat16", "rollout_steps": 2},
    "offpolicy": {"method": "offpolicy", "dtype": "bfloat16"},
}
"""What every family runs: one method with every kind of teacher, held against the CPU, and the others."""
ONCE: dict[str, Settings] = {
    "resumed": {"steps": 2},
    "from the disk": {"steps": 2, "accumulate": 2},
    "float16": {"dtype": "float16"},
    "learned router": {"learned_router": {"bucket": {"prompts": ["a tree", "a house on a hill", "why"]}}},
    "over a frozen LoRA": {"student": {"rank": 4, "base_lora": "LORA"}, "optimizer": {"lr": 1e-3, "name": "adafactor"}},
    "another model's teacher": {},
    "out of memory": {"steps": 2, "batch": 4},
}
"""What Z-Image runs, too."""


HELD = ("danceopd", *ONCE)
"""Trainings that are made on the CPU as well."""


class Watcher:
    """An observer that counts, for the last update, what the host waited for.

    device: the dummy one, which counts; None: any other. room: of the memory that the first update took, what the
    others have; None: all. first: called after the first update.
    """

    cancelled = KeyboardInterrupt

    def __init__(
        self, device: Device | None = None, room: float | None = None, first: Callable[[], None] | None = None
    ) -> None:
        self.device, self.room, self.waits, self.losses, self.first = device, room, {}, [], first

    def on_update(self, result) -> None:
        self.losses.append(result.losses)
        if self.first is not None and len(self.losses) == 1:
            self.first()
        if self.device is not None:
            self.waits = dict(self.device.waits)
            if self.room is not None and len(self.losses) == 1:
                self.device.limit(int(self.device.live + self.room * (self.device.peak - self.device.live)))
            self.device.restart()

    def on_validate(self) -> None: ...
    def on_save(self, state) -> None: ...
    def on_not_saved(self, why) -> None: ...
    def should_stop(self) -> bool:
        return False


class Family:
    """A tiny model of a family with the files that its trainings name, in a folder."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root = name, root
        self.model = SAVED[name](root / "model")
        backbone = open_backbone(self.model)
        self.edits = backbone.max_sources > 0
        self.lora, self.full = root / "lora.safetensors", [root / "one.safetensors", root / "two.safetensors"]
        shapes = {name: tuple(part.weight.shape) for name, part in _linear(backbone.network)}
        lora = random_lora(shapes, 4, 1, tuple(backbone.default_targets))
        write_lora(self.lora, lora, lora_metadata(lora, family=backbone.family, title="x"))
        for seed, file in enumerate(self.full):
            save_file(randomize(backbone.network, 7 + seed).state_dict(), file)
        random = np.random.default_rng(0)
        for picture in ("one", "two"):
            Image.fromarray(random.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(root / f"{picture}.png")
        rows = "a red cat on a mat,{},one.png\na dog,{},two.png\n"
        (root / "draw.csv").write_text("prompt,source_image,target_image\n" + rows.format("", ""))
        (root / "edit.csv").write_text("prompt,source_image,target_image\n" + rows.format("two.png", "one.png"))

    def recipe(self, case: str, device: str, **more: object) -> Recipe:
        """Every kind of teacher: guided base, LoRA, full checkpoint, LoRA on a checkpoint, a mix of two.

        more: settings in place of the case's.
        """
        settings = dict((CASES | ONCE)[case])
        lora, (one, two) = str(self.lora), map(str, self.full)
        teachers = {
            "base": {"guidance": 3.0},
            "lora": {"lora": lora},
            "full": {"checkpoint": one},
            "both": {"checkpoint": two, "lora": lora, "guidance": 2.0},
        }
        draw, edit = ({"csv": str(self.root / f"{name}.csv")} for name in ("draw", "edit" if self.edits else "draw"))
        routes = [
            {"name": "base", "teacher": "base", "bucket": draw},
            {"name": "lora", "teacher": "lora", "bucket": edit},
            {"name": "full", "teacher": "full", "bucket": draw},
            {"name": "both", "teacher": "both", "bucket": edit},
            {"name": "mix", "teacher": {"base": 0.5, "lora": 0.5}, "bucket": draw},
        ]
        if case != "danceopd":
            teachers, routes = {name: teachers[name] for name in ("base", "lora")}, routes[:2]
        if case == "learned router":
            for route, word in zip(routes, ("cat", "dog"), strict=True):
                route["bucket"] = {"prompts": [f"{word} {letter}" for letter in "abcdef"]}
        if case == "another model's teacher":
            twin = self.root / f"twin-{device}"
            teachers["lora"] = {"model": str(twin if twin.exists() else save_twin(twin, self.model))}
        if case == "over a frozen LoRA":
            settings["student"] = {"rank": 4, "base_lora": lora}
        return parse_recipe(
            {
                "model": str(self.model),
                "teachers": teachers,
                "routes": routes,
                "student": {"rank": 4},
                "optimizer": {"lr": 1e-3, "ema": 0.5, "warmup": 1, "schedule": "constant_with_warmup"},
                "router": "all",
                "steps": 1,
                "batch": 2,
                "accumulate": 1,
                "rollout_steps": 3,
                "width": SIZE,
                "height": SIZE,
                "dtype": "float32",
                "device": device,
                "out": str(self.root / f"{case}-{device}"),
                **settings,
                **more,
            }
        )


def _linear(network):
    return [(name, part) for name, part in network.named_modules() if isinstance(part, torch.nn.Linear)]


def train(recipe: Recipe, watcher: Watcher, resume: bool = False, told: list[str] | None = None) -> TrainingSession:
    folder = RunFolder(recipe.out)
    folder.claim(recipe, resume)
    session = open_session(recipe, resumed=resume, log=(told if told is not None else []).append)
    folder.begin(session, resume)
    if watcher.device is not None:
        watcher.device.restart()
    train_loop(session, folder, watcher)
    return session


def outcome(family: Family, case: str, device: str, on: Device | None = None, **more: object) -> dict[str, object]:
    """What a training came to, and where its tensors lie. on: the dummy device, which counts. more: other settings."""
    recipe, told = family.recipe(case, device, **more), []
    watcher = Watcher(on, 0.6 if case == "out of memory" else None)
    if case == "resumed":
        train(parse_recipe({**recipe.to_dict(), "steps": 1}), watcher)
    small, stored_samples.SMALL = stored_samples.SMALL, 0 if case == "from the disk" else stored_samples.SMALL
    session = train(recipe, watcher, case == "resumed", told)
    stored_samples.SMALL = small
    if on is not None:
        on.limit(0)
    errors = session.trainer.validate()
    examples = session.trainer.routes[-1].samples.select([0, 1])
    pictures = validation_pictures(session, examples)
    kept = session.trainer._updater._optimizer.state_dict()["state"]
    return {
        "losses": watcher.losses,
        "errors": errors,
        "pictures": [float(picture.astype(float).mean()) for picture in pictures],
        "network": _places([*session.backbone.network.parameters(), *session.backbone.network.buffers()]),
        "optimizer": _places(value for state in kept.values() for value in state.values()),
        "vae": session.backbone.vae.module.device.type,
        "waits": watcher.waits,
        "told": told,
    }


def _places(tensors) -> list[str]:
    return sorted({tensor.device.type for tensor in tensors if isinstance(tensor, torch.Tensor)})


@contextmanager
def small_sources() -> Iterator[None]:
    """A block in which models that edit see their sources at a size for tests."""
    area, rows = qwen21.SOURCE_AREA, dict(EDITING)
    qwen21.SOURCE_AREA = 64**2
    EDITING.update({name: row._replace(encoder_area=56**2, vae_area=64**2) for name, row in EDITING.items()})
    try:
        yield
    finally:
        qwen21.SOURCE_AREA = area
        EDITING.update(rows)


def cases_of(family: str) -> list[str]:
    """What a family runs."""
    return [*CASES, *{"zimage": ONCE, "sd3": ("resumed", "from the disk", "out of memory")}.get(family, ())]
