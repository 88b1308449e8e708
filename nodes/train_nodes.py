"""Nodes for the student and its training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..danceopd_core.errors import Fault, InputError, refuse
from ..danceopd_core.recipe.from_graph import recipe_of
from ..danceopd_core.recipe.graph import ModelSpec
from ..danceopd_core.runs.files.run_names import check_name, without_ending
from ..danceopd_core.runs.live.live_status import LiveStatus
from ._comfy import (
    RUNS,
    ComfyHost,
    blocked,
    device_name,
    display_node,
    encoding_cache,
    heartbeat,
    io,
    output_folder,
    readable_folders,
    send,
    workspace,
)
from .header_checks import faults_of
from .lists import one, pictures_of, prompts_of, single
from .quality import against_preset, resolved
from .run_checks import ABSENT, limits, pictures_without_prompts, settings_fault, told, widgets
from .sockets import CATEGORY
from .training_inputs import training_inputs

if TYPE_CHECKING:
    from ..danceopd_core.runs.stored.records import RunRecord

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
            is_input_list=True,
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
        from ..danceopd_core.runs.stored.records import unfinished

        # A stopped run continues when it is queued again; without this ComfyUI would return its cached outputs.
        return unfinished(output_folder(), one("name", name))

    @classmethod
    def validate_inputs(cls, **inputs):
        own, given = widgets(inputs), training_inputs()
        out_of_range = [*limits(given, own)]
        if out_of_range:
            return faults_of(*out_of_range)
        settings = {i.id: i.default for i in given if isinstance(i, io.WidgetInput)} | own
        more = settings.pop("more_settings")
        for name in ("name", "validation_prompts", "validate_every", "resume", "quality"):
            del settings[name]
        sources = inputs.get("validation_sources", ABSENT)
        return faults_of(
            told(lambda: check_name(own["name"])) if "name" in own else "",
            *against_preset(own),
            settings_fault(recipe_settings(ModelSpec("shapes", "float32"), Path(), **settings), more),
            pictures_without_prompts(
                "validation_prompts", inputs.get("validation_prompts"), "validation_sources", sources
            ),
        )

    @classmethod
    def execute(cls, validation_prompts, validation_sources=None, **inputs):
        node = str(cls.hidden.unique_id)
        name, steps = str(inputs["name"][0]), int(inputs["steps"][0])
        status = LiveStatus(node, display_node(node), without_ending(name), steps, send)
        with status.showing_faults(ComfyHost.cancelled):
            prompts = prompts_of(validation_prompts, "validation_prompts")
            pictures = pictures_of(validation_sources, "validation_sources")
            return cls._train(status, prompts, pictures, **single(inputs))

    @classmethod
    def _train(cls, status, prompts, sources, routes, student, name, validate_every, resume, more_settings, **widgets):
        from ..danceopd_core.runs.front.interactive import Job, train_job
        from ..danceopd_core.runs.plans.sources import graph_source
        from ..danceopd_core.runs.stored.records import RunRecord
        from ..danceopd_core.runs.training.validation import Validation

        run, node = RunRecord(output_folder(), name), status.data["node"]
        status.publish(shares=dict(zip(routes.names(), routes.shares(), strict=True)))
        check_alone(cls.hidden.prompt or {}, node, run.name)
        source = graph_source(routes.model, [route.field for route in routes.routes])
        settings = recipe_settings(routes.model, run.path, **resolved(widgets, source))
        recipe = recipe_of(routes, student, settings, more_settings)
        validation = Validation(prompts, sources, validate_every)
        workflow = {"prompt": cls.hidden.prompt, "workflow": (cls.hidden.extra_pnginfo or {}).get("workflow")}
        check_what_follows(cls.hidden.prompt or {}, node, routes.model)
        job = Job(recipe, run, validation, resume, workflow, source, readable_folders(), encoding_cache())
        with workspace(training=True), RUNS.running(node) as stop, heartbeat(status):
            train_job(job, ComfyHost(node, recipe.steps), status, stop)
        return _output(run, status, routes.model)


def check_alone(prompt: Mapping[str, Any], node: str, name: str) -> None:
    """InputError if another node of the prompt trains a LoRA of this name with other settings."""
    own = prompt.get(node, {}).get("inputs")
    for key, other in prompt.items():
        named = other.get("inputs", {}).get("name")
        same = isinstance(named, str) and without_ending(named).casefold() == name.casefold()
        if key != node and other.get("class_type") == "DanceOPD_Train" and same and other["inputs"] != own:
            raise InputError(
                f"name: node {key} trains '{name}' too, with other settings, and the second would set aside what the "
                "first has trained: choose another name"
            )


def check_what_follows(prompt: Mapping[str, Any], node: str, model: ModelSpec) -> None:
    """InputError, before the training, if a node that samples its LoRA would refuse the size after it."""
    from ..danceopd_core.runs.plans.opening import size_or_default
    from ..danceopd_core.runs.plans.preflight import size_faults
    from ..danceopd_core.runs.plans.sources import graph_source

    faults: list[Fault] = []
    for key, other in prompt.items():
        inputs, kind = other.get("inputs", {}), other.get("class_type")
        if kind in ("DanceOPD_Sample", "DanceOPD_Compare") and inputs.get("lora") == [node, 0]:
            given = (inputs.get(name) for name in ("width", "height"))
            width, height = size_or_default(model.folder, *(side if isinstance(side, int) else 0 for side in given))
            place = f"{kind.removeprefix('DanceOPD_')} (node {key})"
            found = size_faults(graph_source(model, []).facts(), width, height)
            faults += [Fault(f"{place}, {fault.setting}", fault.message) for fault in found]
    refuse("what follows the training", faults)


def recipe_settings(
    model: ModelSpec, out: Path, learning_rate, width, height, schedule, warmup, ema, k, bias, gradient_checkpointing,
    shift=0.0, sigma_low=0.0, sigma_high=0.0, **same_names,
):  # fmt: skip
    """The widgets as the keys of a recipe."""
    from ..danceopd_core.runs.plans.opening import size_or_default

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

    from ..danceopd_core.runs.training.validation import read_pictures

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
