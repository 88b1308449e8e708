"""Nodes for the student and its training."""

from __future__ import annotations

from ..danceopd_core.data.bucket_files import lines_of
from ..danceopd_core.errors import InputError
from ..danceopd_core.recipe.from_graph import on_widgets, recipe_of
from ..danceopd_core.recipe.graph import ModelSpec
from ..danceopd_core.runs.live_status import LiveStatus
from ._comfy import RUNS, ComfyHost, as_arrays, device_name, display_node, heartbeat, io, output_folder, send, workspace
from .sockets import CATEGORY, RoutesSocket, StudentSocket


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
            description="Trains the student on its own paths: at states that it reaches itself it learns the velocity "
            "of the route's teacher. The LoRA lands in output/loras, where Load LoRA finds it; the run is kept in "
            "output/danceopd.",
            search_aliases=["danceopd", "distill", "on-policy distillation", "train lora", "diffusionopd", "flowopd"],
            is_output_node=True,
            not_idempotent=True,
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=[
                RoutesSocket.Input("routes", tooltip="The teachers with their prompts."),
                StudentSocket.Input("student", tooltip="What is trained."),
                io.String.Input(
                    "name",
                    default="student",
                    tooltip="Name of the LoRA in output/loras and of the run in output/danceopd. An earlier run of "
                    "that name with other settings is set aside, not lost.",
                ),
                io.Combo.Input(
                    "method",
                    options=["danceopd", "diffusionopd", "flowopd", "offpolicy"],
                    default="danceopd",
                    tooltip="danceopd asks the teacher about a few states of the student's path; diffusionopd and "
                    "flowopd about all of them; offpolicy learns on noised target pictures.",
                ),
                io.Int.Input("steps", default=120, min=1, max=1000000, tooltip="Updates of the student."),
                io.Float.Input(
                    "learning_rate",
                    default=2e-4,
                    min=1e-8,
                    max=1.0,
                    step=1e-5,
                    round=False,
                    tooltip="Learning rate of AdamW. 1e-3 suits the embedded model, 1e-4 to 2e-4 large ones.",
                ),
                io.Int.Input("batch", default=1, min=1, max=1024, tooltip="Samples at once; more takes more memory."),
                io.Int.Input(
                    "accumulate",
                    default=4,
                    min=1,
                    max=1024,
                    tooltip="Batches an update adds up; more is steadier and slower, and takes no memory.",
                ),
                io.Int.Input(
                    "rollout_steps", default=16, min=1, max=1000, tooltip="Steps of the student's path from noise."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**63 - 1,
                    control_after_generate=False,
                    tooltip="Another seed is another training.",
                ),
                io.String.Input(
                    "validation_prompts",
                    default="",
                    multiline=True,
                    tooltip="One a line: their pictures are shown while it trains. Empty takes the first prompt of "
                    "each route.",
                ),
                io.Int.Input(
                    "validate_every",
                    default=25,
                    min=0,
                    max=1000000,
                    tooltip="Updates between two validations; 0 validates only at the end.",
                ),
                io.Int.Input(
                    "save_every",
                    default=100,
                    min=1,
                    max=1000000,
                    advanced=True,
                    tooltip="Updates between two saves, from which an interrupted training can go on.",
                ),
                io.Boolean.Input(
                    "resume",
                    default=True,
                    advanced=True,
                    tooltip="Go on with a run of this name and these settings that was cancelled or stopped, or that "
                    "had fewer steps. A finished run is never trained again: change the seed or the name for that.",
                ),
                io.Int.Input(
                    "k",
                    default=1,
                    min=1,
                    max=1000,
                    advanced=True,
                    tooltip="States of a path that the teacher is asked about (danceopd and offpolicy).",
                ),
                io.Combo.Input(
                    "bias",
                    options=["low", "mid", "high", "uniform", "every"],
                    default="low",
                    advanced=True,
                    tooltip="Which states those are: low leans to the clean end of the path, high to the noise.",
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=8192,
                    step=16,
                    advanced=True,
                    tooltip="Width in pixels; 0 is 64 for the embedded model and 1024 for others.",
                ),
                io.Int.Input(
                    "height", default=0, min=0, max=8192, step=16, advanced=True, tooltip="Height in pixels; as width."
                ),
                io.Combo.Input(
                    "schedule",
                    options=[
                        "constant",
                        "constant_with_warmup",
                        "linear",
                        "cosine",
                        "cosine_with_restarts",
                        "polynomial",
                    ],
                    default="constant",
                    advanced=True,
                    tooltip="How the learning rate changes over the steps.",
                ),
                io.Int.Input(
                    "warmup",
                    default=0,
                    min=0,
                    max=1000000,
                    advanced=True,
                    tooltip="Updates over which the learning rate rises from 0; not for the constant schedule.",
                ),
                io.Float.Input(
                    "ema",
                    default=0.0,
                    min=0.0,
                    max=0.99999,
                    step=0.001,
                    round=False,
                    advanced=True,
                    tooltip="Decay of a moving average of the weights, which is then what is saved; 0 keeps none.",
                ),
                io.Boolean.Input(
                    "gradient_checkpointing",
                    default=False,
                    advanced=True,
                    tooltip="Much less memory for a third more time.",
                ),
                io.String.Input(
                    "more_settings",
                    default="",
                    multiline=True,
                    advanced=True,
                    tooltip="Other settings of the recipe, one key=value a line: optimizer.clip, "
                    "optimizer.weight_decay, query.sigma, eta, group, anchor, ode_kl_weight.",
                ),
                io.Image.Input(
                    "validation_sources",
                    optional=True,
                    tooltip="Pictures that the validation prompts edit: one for all, or one each.",
                ),
                # These came later. A prompt that was saved before them has none, so they are optional.
                io.Float.Input(
                    "shift",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.5,
                    round=False,
                    optional=True,
                    advanced=True,
                    tooltip="Evenly spaced sigmas with this shift as the student's path; 0 is the model's own "
                    "scheduler, 3 the paper's choice for Z-Image.",
                ),
                io.Float.Input(
                    "sigma_low",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=False,
                    optional=True,
                    advanced=True,
                    tooltip="The teacher is asked evenly from this sigma to sigma_high, in place of bias; 0 is clean, "
                    "1 noise.",
                ),
                io.Float.Input(
                    "sigma_high",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=False,
                    optional=True,
                    advanced=True,
                    tooltip="Upper end of that range; 0 leaves the choice to bias. Where it asks stands in the panel.",
                ),
            ],
            outputs=[
                io.LoraModel.Output("lora", display_name="lora", tooltip="For Load LoRA Model, Save LoRA, Sample."),
                io.LossMap.Output("loss_map", display_name="loss map", tooltip="For Plot Loss Graph: one an update."),
                io.String.Output("lora_name", display_name="lora name", tooltip="Its name in the loras folder."),
                io.Image.Output("pictures", display_name="pictures", tooltip="Those of the last validation."),
                io.Int.Output("trained_steps", display_name="steps", tooltip="Updates that the student has had."),
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
            raise on_widgets(error) from None
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
