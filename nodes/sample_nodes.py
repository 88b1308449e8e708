"""Nodes that look at what a student has learned."""

from __future__ import annotations

from ..danceopd_core.data.bucket_files import lines_of
from ..danceopd_core.errors import InputError
from ..danceopd_core.recipe.graph import FieldSpec, ModelSpec
from ..danceopd_core.recipe.schema import Teacher
from ._comfy import (
    ComfyHost,
    as_arrays,
    chosen,
    device_name,
    io,
    lora_choices,
    lora_file,
    output_folder,
    stamp,
    workspace,
)
from .sockets import CATEGORY, BucketSocket, ModelSocket, RoutesSocket
from .train_nodes import side_of


def _student_inputs() -> list[io.Input]:
    return [
        io.LoraModel.Input("lora", optional=True, tooltip="The student, straight from its training."),
        io.Combo.Input(
            "lora_name",
            options=list(lora_choices()),
            default="none",
            tooltip="Or a LoRA of ComfyUI's loras folders; none, with none wired in, is the bare base model.",
        ),
        io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.05, tooltip="Factor of the LoRA."),
    ]


def _guidance_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "guidance",
            default=1.0,
            min=0.0,
            max=30.0,
            step=0.1,
            tooltip="Classifier-free guidance; 1 for a student that has absorbed it, and twice as fast.",
        ),
        io.String.Input("negative", default="", advanced=True, tooltip="What guidance leads away from."),
    ]


def _drawing_inputs(new_seeds: bool, steps: int = 8) -> list[io.Input]:
    return [
        io.Int.Input("steps", default=steps, min=1, max=1000, tooltip="Steps from noise to the picture."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**63 - 1,
            control_after_generate=new_seeds,  # False: the page would give one to whatever is named "seed"
            tooltip="Seed of the noise.",
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
    ]


def _drawing(model: ModelSpec, steps: int, seed: int, width: int, height: int):
    from ..danceopd_core.runs.comparison import Drawing

    return Drawing(steps, side_of(model, width), side_of(model, height), seed, device_name())


def _student(lora, lora_name: str, strength: float, guidance: float = 1.0, negative: str = "") -> Teacher:
    """The student as a frozen field's spec."""
    file = chosen(lora_choices(), lora_name, "lora_name")
    if lora is not None and file:
        raise InputError("lora_name: a LoRA is wired in already: set it to none, or unplug the other")
    if lora is not None:
        file = str(lora_file(lora))
    return Teacher(lora=file, strength=strength if file else 1.0, guidance=guidance, negative=negative)


def _check_counts(prompts, sources) -> None:
    if not prompts or (len(sources) != 1 and len(prompts) not in (1, len(sources))):
        raise InputError(f"sources: {len(sources)} pictures for {len(prompts)} prompts: give one for all, or one each")


class SampleStudent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Sample",
            display_name="Sample Student",
            category=CATEGORY,
            description="A picture from a prompt, or an edit of a source picture, by the model with a student LoRA.",
            search_aliases=["danceopd", "generate", "edit image", "sampler"],
            inputs=[
                ModelSocket.Input("model", tooltip="The model that the LoRA was trained for."),
                io.Combo.Input(
                    "task",
                    options=["auto", "text-to-image", "edit"],
                    default="auto",
                    tooltip="auto: an edit if a source is wired in. text-to-image leaves the source aside.",
                ),
                io.String.Input("prompt", default="", multiline=True, tooltip="What to draw, or what to change."),
                io.Image.Input("source", optional=True, tooltip="The picture to edit; each of a batch is edited."),
                *_student_inputs(),
                *_guidance_inputs(),
                *_drawing_inputs(new_seeds=True),
            ],
            outputs=[io.Image.Output("image", display_name="image", tooltip="The picture.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name, **others):
        return stamp(lora_choices().get(lora_name))

    @classmethod
    def execute(
        cls, model, task, prompt, lora_name, strength, guidance, negative, steps, seed, width, height,
        source=None, lora=None,
    ):  # fmt: skip
        from ..danceopd_core.runs.comparison import draw, items_of

        if task == "edit" and source is None:
            raise InputError("source: the task is edit, but no picture is wired in: wire one, or choose another task")
        sources = () if task == "text-to-image" else as_arrays(source, "source")
        field = FieldSpec(model, "student", ((_student(lora, lora_name, strength, guidance, negative), 1.0),))
        how, host = _drawing(model, steps, seed, width, height), ComfyHost(cls.hidden.unique_id, steps)
        with workspace(training=False):
            shots = draw(model, {"student": field}, items_of([prompt.strip()], sources), how, host)
        return io.NodeOutput(shots["student"])


class Compare(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Compare",
            display_name="Compare Fields",
            category=CATEGORY,
            description="Base, teachers and student side by side on the same prompts and noises, as one picture.",
            search_aliases=["danceopd", "contact sheet", "grid", "side by side"],
            inputs=[
                RoutesSocket.Input("routes", tooltip="The teachers, and their prompts."),
                *_student_inputs(),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="One a line; empty takes some of each bucket.",
                ),
                io.Image.Input("sources", optional=True, tooltip="Pictures that the prompts edit: one, or one each."),
                io.Int.Input(
                    "rows", default=3, min=1, max=32, tooltip="Prompts of each bucket, where none are written above."
                ),
                *_drawing_inputs(new_seeds=False),
            ],
            outputs=[io.Image.Output("sheet", display_name="sheet", tooltip="One picture with captions.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name, **others):
        return stamp(lora_choices().get(lora_name))

    @classmethod
    def execute(cls, routes, lora_name, strength, prompts, rows, steps, seed, width, height, sources=None, lora=None):
        from ..danceopd_core.runs.comparison import draw, items_of, items_of_routes
        from ..danceopd_core.runs.comparison_sheet import sheet

        model, asked, given = routes.model, lines_of(prompts), as_arrays(sources, "sources")
        if given:
            _check_counts(asked, given)
        how = _drawing(model, steps, seed, width, height)
        items = items_of(asked, given) if asked else items_of_routes(routes, rows, how)
        base = FieldSpec(model, "base", ((Teacher(), 1.0),))
        fields: dict[str, FieldSpec] = {}
        for field in dict.fromkeys([base, *(lane.field for lane in routes.lanes)]):
            taken = field.label in (*fields, "student")
            fields[f"{field.label} ({len(fields) + 1})" if taken else field.label] = field
        if lora is not None or lora_name != "none":
            fields["student"] = FieldSpec(model, "student", ((_student(lora, lora_name, strength), 1.0),))
        with workspace(training=False):
            shots = draw(model, fields, items, how, ComfyHost(cls.hidden.unique_id, steps))
        return io.NodeOutput(sheet(items, shots, how.width, how.height))


class Evaluate(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Evaluate",
            display_name="Evaluate Short List",
            category=CATEGORY,
            description="Pictures of a short list of prompts as files, where the official scorers of GenEval or "
            "GEdit-Bench look for them. What is finished in the folder is kept.",
            search_aliases=["danceopd", "benchmark", "geneval", "gedit", "score"],
            is_output_node=True,
            inputs=[
                ModelSocket.Input("model", tooltip="The model that draws or edits."),
                io.Combo.Input(
                    "layout",
                    options=["geneval", "gedit"],
                    default="geneval",
                    tooltip="geneval: pictures from text. gedit: edits of source pictures, beside their sources.",
                ),
                io.String.Input(
                    "name",
                    default="short_list",
                    tooltip="The folder in output/danceopd_eval. With other settings it has to be another one.",
                ),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="One a line. For geneval a line may also be one of its evaluation_metadata.jsonl.",
                ),
                BucketSocket.Input("bucket", optional=True, tooltip="Or the prompts of a bucket, with their sources."),
                io.Image.Input("sources", optional=True, tooltip="Pictures that the prompts edit: one, or one each."),
                *_student_inputs(),
                io.Int.Input("samples", default=1, min=1, max=64, tooltip="Pictures of each prompt; GenEval has 4."),
                io.Int.Input("limit", default=16, min=0, max=5000, tooltip="Prompts at most; 0 takes all of them."),
                *_guidance_inputs(),
                *_drawing_inputs(new_seeds=False, steps=28),
            ],
            outputs=[
                io.Image.Output("pictures", display_name="pictures", tooltip="All of them, in the list's order."),
                io.String.Output("folder", display_name="folder", tooltip="Where they lie."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name, **others):
        return stamp(lora_choices().get(lora_name))

    @classmethod
    def execute(
        cls, model, layout, name, prompts, lora_name, strength, samples, limit, guidance, negative, steps, seed,
        width, height, bucket=None, sources=None, lora=None,
    ):  # fmt: skip
        from ..danceopd_core.data.buckets import load_bucket
        from ..danceopd_core.evaluation.generate import GenerationConfig
        from ..danceopd_core.evaluation.short_list import benchmark_prompts, eval_folder, evaluate
        from ..danceopd_core.runs.comparison import items_of

        written, given = lines_of(prompts), as_arrays(sources, "sources")
        if bucket is not None and (written or given):
            raise InputError("bucket: prompts or sources are given too: empty and unplug them, or unplug the bucket")
        size = side_of(model, width), side_of(model, height)
        how = GenerationConfig(samples, steps, guidance, negative, seed, *size, device=device_name())
        if given:
            _check_counts(written, given)
        items = items_of(written, given) if bucket is None else load_bucket(bucket.bucket, seed, *size)
        folder = eval_folder(output_folder(), name)
        asked = benchmark_prompts(items[: limit or None], layout)
        student, host = _student(lora, lora_name, strength), ComfyHost(cls.hidden.unique_id, steps)
        with workspace(training=False):
            made = evaluate(model, student, asked, layout, how, folder, host)
        return io.NodeOutput(made, str(folder))
