"""Nodes for the student and its training."""

from __future__ import annotations

from ..danceopd_core.data.bucket_files import lines_of
from ..danceopd_core.errors import InputError
from ..danceopd_core.recipe.from_graph import on_widgets, recipe_of
from ..danceopd_core.recipe.graph import ModelSpec
from ..danceopd_core.runs.live_status import LiveStatus
from ._comfy import RUNS, ComfyHost, as_arrays, device_name, display_node, heartbeat, io, output_folder, send, workspace
from .sockets import CATEGORY
from .training_inputs import training_inputs


def side_of(model: ModelSpec, asked: int) -> int:
    """A width or height in pixels; 0 asks for the model's own."""
    return asked or (64 if model.folder == "shapes" else 1024)


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
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, name=None, **others):
        from ..danceopd_core.runs.records import unfinished

        # Queued again, a run that was stopped goes on; without this ComfyUI would give its cached outputs.
        return unfinished(output_folder(), name)

    @classmethod
    def execute(
        cls, routes, student, name, steps, learning_rate, width, height, validation_prompts, validate_every, resume,
        schedule, warmup, ema, k, bias, more_settings, validation_sources=None, shift=0.0, sigma_low=0.0,
        sigma_high=0.0, **settings,
    ):  # fmt: skip
        from safetensors.torch import load_file

        from ..danceopd_core.runs.node_run import Job, Validation, read_pictures, train
        from ..danceopd_core.runs.records import RunRecord

        run, hidden = RunRecord(output_folder(), name), cls.hidden
        settings |= {
            "steps": steps,
            "width": side_of(routes.model, width),
            "height": side_of(routes.model, height),
            "optimizer": {"lr": learning_rate, "schedule": schedule, "warmup": warmup, "ema": ema},
            "query": {"bias": bias, "k": k, "sigma": [sigma_low, sigma_high] if sigma_low or sigma_high else None},
            "sigmas": {"shift": shift} if shift else "model",
            "device": device_name(),
            "out": str(run.path),
        }
        recipe = recipe_of(routes, student, settings, more_settings)
        sources = as_arrays(validation_sources, "validation_sources")
        watch = Validation(lines_of(validation_prompts), sources, validate_every)
        workflow = {"prompt": hidden.prompt, "workflow": (hidden.extra_pnginfo or {}).get("workflow")}
        node = str(hidden.unique_id)
        page = LiveStatus(node, display_node(node), run.name, steps, send)
        try:
            with workspace(training=True), RUNS.running(node) as stop, heartbeat(page):
                train(Job(recipe, run, watch, resume, workflow), ComfyHost(node, steps), page, stop)
        except InputError as error:
            raise InputError(on_widgets(str(error))) from None
        losses = run.losses()
        told = {"lora_name": run.lora.name, "run": run.name, "state": page.data["state"], "steps": page.data["update"]}
        return io.NodeOutput(
            load_file(run.lora),
            {"loss": losses},
            run.lora.name,
            read_pictures(run.pictures()),
            page.data["update"],
            ui={key: [value] for key, value in {**told, "loss": losses[-1] if losses else None}.items()},
        )
