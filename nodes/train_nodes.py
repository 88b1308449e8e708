"""Nodes for the student and its training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..danceopd_core.data.bucket_files import lines_of
from ..danceopd_core.recipe.from_graph import recipe_of
from ..danceopd_core.recipe.graph import ModelSpec
from ..danceopd_core.runs.live_status import LiveStatus
from ._comfy import (
    RUNS,
    ComfyHost,
    as_arrays,
    blocked,
    device_name,
    display_node,
    heartbeat,
    io,
    output_folder,
    readable_folders,
    send,
    workspace,
)
from .sockets import CATEGORY
from .training_inputs import training_inputs

if TYPE_CHECKING:
    from ..danceopd_core.runs.records import RunRecord

NO_MODEL = (
    "the student was trained over a diffusers folder, which has no MODEL: use Load LoRA on a MODEL of your own, "
    "or train over Flow Model from ComfyUI"
)


class TrainStudent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Train",
            display_name="Train Student LoRA",
            category=CATEGORY,
            description="Trains the student LoRA by on-policy distillation: the student learns to match the velocity "
            "of the route's teacher at states from the student's rollouts. The LoRA is saved in output/loras, where "
            "Load LoRA lists it, and the run in output/danceopd.",
            search_aliases=["danceopd", "distill", "on-policy distillation", "train lora", "diffusionopd", "flowopd"],
            is_output_node=True,
            not_idempotent=True,
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=training_inputs(),
            outputs=[
                io.LoraModel.Output(
                    "lora",
                    display_name="lora",
                    tooltip="Trained LoRA, for Load LoRA Model, Save LoRA, Sample Student and Compare Fields.",
                ),
                io.LossMap.Output(
                    "loss_map", display_name="loss map", tooltip="Loss of every update, for Plot Loss Graph."
                ),
                io.String.Output(
                    "lora_name", display_name="lora name", tooltip="File name of the LoRA in the loras folder."
                ),
                io.Image.Output("pictures", display_name="images", tooltip="Images of the last validation."),
                io.Int.Output("trained_steps", display_name="trained steps", tooltip="Number of completed updates."),
                io.Model.Output(
                    "model",
                    display_name="MODEL",
                    tooltip="MODEL of Flow Model from ComfyUI with the trained LoRA on it, for KSampler. A diffusers "
                    "folder has none.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, name=None, **others):
        from ..danceopd_core.runs.records import unfinished

        # A stopped run continues when it is queued again; without this ComfyUI would return its cached outputs.
        return unfinished(output_folder(), name)

    @classmethod
    def execute(
        cls, routes, student, name, validation_prompts, validate_every, resume, more_settings, validation_sources=None,
        **widgets,
    ):  # fmt: skip
        from ..danceopd_core.runs.interactive import Job, train_job
        from ..danceopd_core.runs.records import RunRecord
        from ..danceopd_core.runs.sources import graph_source
        from ..danceopd_core.runs.validation import Validation

        run, node = RunRecord(output_folder(), name), str(cls.hidden.unique_id)
        recipe = recipe_of(routes, student, _settings(routes.model, run.path, **widgets), more_settings)
        sources = as_arrays(validation_sources, "validation_sources")
        validation = Validation(lines_of(validation_prompts), sources, validate_every)
        workflow = {"prompt": cls.hidden.prompt, "workflow": (cls.hidden.extra_pnginfo or {}).get("workflow")}
        source = graph_source(routes.model, [route.field for route in routes.routes])
        job = Job(recipe, run, validation, resume, workflow, source, readable_folders())
        status = LiveStatus(node, display_node(node), run.name, recipe.steps, send)
        with workspace(training=True), RUNS.running(node) as stop, heartbeat(status):
            train_job(job, ComfyHost(node, recipe.steps), status, stop)
        return _output(run, status, routes.model)


def _settings(
    model: ModelSpec, out: Path, learning_rate, width, height, schedule, warmup, ema, k, bias, gradient_checkpointing,
    shift=0.0, sigma_low=0.0, sigma_high=0.0, **same_names,
):  # fmt: skip
    """The widgets as the keys of a recipe."""
    from ..danceopd_core.runs.opening import size_or_default

    width, height = size_or_default(model.folder, width, height)
    return {
        **same_names,
        "width": width,
        "height": height,
        "optimizer": {"lr": learning_rate, "schedule": schedule, "warmup": warmup, "ema": ema},
        "query": {"bias": bias, "k": k, "sigma": [sigma_low, sigma_high] if sigma_low or sigma_high else None},
        "sigmas": {"shift": shift} if shift else "model",
        "gradient_checkpointing": gradient_checkpointing or None,
        "device": device_name(),
        "out": str(out),
    }


def _output(run: RunRecord, status: LiveStatus, model: ModelSpec) -> io.NodeOutput:
    from safetensors.torch import load_file

    from ..danceopd_core.runs.validation import read_pictures

    losses, update = run.losses(), status.data["update"]
    shown = {
        "lora_name": run.lora.name,
        "run": run.name,
        "state": status.data["state"],
        "steps": update,
        "loss": losses[-1] if losses else None,
    }
    return io.NodeOutput(
        load_file(run.lora),
        {"loss": losses},
        run.lora.name,
        read_pictures(run.pictures()),
        update,
        blocked(NO_MODEL) if model.live is None else model.live.with_lora(run.lora),
        ui={key: [value] for key, value in shown.items()},
    )
