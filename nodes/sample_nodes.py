"""Nodes that sample, compare and evaluate a student."""

from __future__ import annotations

from typing import Any

from ..danceopd_core.errors import InputError
from ..danceopd_core.recipe.graph import FieldSpec
from ._comfy import (
    NONE,
    ComfyHost,
    as_arrays,
    blocked,
    device_name,
    io,
    lora_choices,
    output_folder,
    readable_folders,
    stamp,
    workspace,
)
from .header_checks import faults_of, lora_check
from .lists import one, pictures_of, prompts_of, single
from .run_checks import ABSENT, both_loras, pictures_without_prompts, told, widget
from .sampling_inputs import guidance_inputs, sampling_inputs, student_inputs
from .sampling_specs import check_size, sampling_settings, student_spec
from .sockets import CATEGORY, BucketSocket, FieldSocket, ModelSocket, RoutesSocket

TASKS = ("auto", "text-to-image", "edit")
NO_TEACHER = "teacher: none is connected: wire in a Teacher Field"
NO_SOURCE = "source: the task is edit, but no image is connected: connect one, or change the task"


def _lora_fault(lora_name: Any) -> str:
    """What is wrong with the file."""
    return lora_check("lora_name", lora_choices(), widget(lora_name))


class SampleStudent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Sample",
            display_name="Sample Student",
            category=CATEGORY,
            description="Generates an image from a prompt, or edits a source image, with the model and a student LoRA.",
            search_aliases=["danceopd", "generate", "edit image", "sampler"],
            inputs=[
                ModelSocket.Input("model", tooltip="Model that the LoRA was trained on."),
                io.Combo.Input(
                    "task",
                    options=list(TASKS),
                    default="auto",
                    tooltip="auto: edit if a source image is connected, otherwise text-to-image. text-to-image: "
                    "ignores the source image. edit: requires a source image.",
                ),
                io.String.Input(
                    "prompt", default="", multiline=True, tooltip="Description of the image, or the edit instruction."
                ),
                io.Image.Input("source", optional=True, tooltip="Image to edit. Every image of a batch is edited."),
                *student_inputs(),
                *guidance_inputs(),
                *sampling_inputs(new_seeds=True),
                FieldSocket.Input(
                    "teacher",
                    optional=True,
                    tooltip="Teacher that draws the same prompt from the same noise, for the second output.",
                ),
            ],
            outputs=[
                io.Image.Output("image", display_name="image", tooltip="Generated or edited image."),
                io.Image.Output(
                    "teacher_image",
                    display_name="teacher image",
                    tooltip="The same by the teacher. Without a teacher there is none.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name, **others):
        return stamp(lora_choices().get(lora_name))

    @classmethod
    def validate_inputs(cls, task=None, lora_name=NONE, lora=ABSENT, source=ABSENT):
        tasks = [] if task in (None, *TASKS) else [f"task: '{task}' is none of {', '.join(TASKS)}"]
        missing = [NO_SOURCE] if task == "edit" and source is ABSENT else []
        return faults_of(*tasks, *missing, _lora_fault(lora_name), both_loras(lora_name, lora))

    @classmethod
    def execute(
        cls, model, task, prompt, lora_name, strength, guidance, negative, steps, seed, width, height,
        source=None, lora=None, teacher=None,
    ):  # fmt: skip
        from ..danceopd_core.runs.pictures.field_sampling import paired_items, sample_fields

        if teacher is not None and teacher.model != model:
            raise InputError("teacher: it is over another model: wire its Teacher Field to the model of this node")
        if task == "edit" and source is None:
            raise InputError(NO_SOURCE)
        sources = () if task == "text-to-image" else as_arrays(source, "source")
        field = FieldSpec(model, "student", ((student_spec(lora, lora_name, strength, guidance, negative), 1.0),))
        items, settings = paired_items([prompt.strip()], sources), sampling_settings(model, steps, seed, width, height)
        fields = {"student": field} | ({} if teacher is None else {"teacher": teacher})
        host = ComfyHost(cls.hidden.unique_id, steps * len(fields))
        with workspace(training=False):
            images = sample_fields(model, fields, items, settings, host)
        return io.NodeOutput(images["student"], blocked(NO_TEACHER) if teacher is None else images["teacher"])


class Compare(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Compare",
            display_name="Compare Fields",
            category=CATEGORY,
            description="Generates images with the base model, the teachers, the student, and the teachers' LoRAs "
            "stacked, from the same prompts and initial noise, and arranges them in one comparison image.",
            search_aliases=["danceopd", "contact sheet", "grid", "side by side"],
            is_input_list=True,
            inputs=[
                RoutesSocket.Input("routes", tooltip="Teachers and their prompts."),
                *student_inputs(),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="Prompts, one per line. Empty: prompts from each bucket.",
                ),
                io.Image.Input(
                    "sources", optional=True, tooltip="Source images to edit: one for all prompts, or one per prompt."
                ),
                io.Int.Input("rows", default=3, min=1, max=32, tooltip="Prompts per bucket, if prompts is empty."),
                *sampling_inputs(new_seeds=False),
            ],
            outputs=[
                io.Image.Output(
                    "sheet",
                    display_name="comparison",
                    tooltip="Comparison image with captions: one row per prompt, one column per field.",
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name, **others):
        return stamp(lora_choices().get(one("lora_name", lora_name)))

    @classmethod
    def validate_inputs(cls, lora_name=NONE, lora=ABSENT, prompts=None, sources=ABSENT):
        pictures = pictures_without_prompts("prompts", prompts, "sources", sources)
        return faults_of(_lora_fault(lora_name), both_loras(lora_name, lora), pictures)

    @classmethod
    def execute(cls, prompts, sources=None, **inputs):
        return cls._compare(prompts_of(prompts, "prompts"), pictures_of(sources, "sources"), **single(inputs))

    @classmethod
    def _compare(cls, prompts, pictures, routes, lora_name, strength, rows, steps, seed, width, height, lora=None):
        from ..danceopd_core.runs.pictures.comparison import (
            comparison_fields,
            comparison_items,
            comparison_sheet,
            comparison_stacks,
        )
        from ..danceopd_core.runs.pictures.field_sampling import sample_fields

        settings = sampling_settings(routes.model, steps, seed, width, height)
        items = comparison_items(routes, prompts, pictures, rows, settings, readable_folders())
        with_student = lora is not None or lora_name != NONE
        fields = comparison_fields(routes, student_spec(lora, lora_name, strength) if with_student else None)
        with workspace(training=False):
            host = ComfyHost(cls.hidden.unique_id, steps)
            images = sample_fields(routes.model, fields, items, settings, host, comparison_stacks(routes))
        return io.NodeOutput(comparison_sheet(items, images, settings))


class Evaluate(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Evaluate",
            display_name="Evaluate Short List",
            category=CATEGORY,
            description="Generates images for a short list of prompts and saves them in the folder layout that the "
            "official scorers of GenEval or GEdit-Bench read. Images that exist already are kept.",
            search_aliases=["danceopd", "benchmark", "geneval", "gedit", "score"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                ModelSocket.Input("model", tooltip="Model to evaluate."),
                io.Combo.Input(
                    "layout",
                    options=["geneval", "gedit"],
                    default="geneval",
                    tooltip="geneval: images generated from text. gedit: edits, saved next to their source images.",
                ),
                io.String.Input(
                    "name",
                    default="short_list",
                    tooltip="Output folder in output/danceopd_eval. Different settings need a different name.",
                ),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="Prompts, one per line. With geneval, a line may also be a line of GenEval's "
                    "evaluation_metadata.jsonl.",
                ),
                BucketSocket.Input(
                    "bucket",
                    optional=True,
                    tooltip="Bucket that provides the prompts and source images, instead of prompts and sources.",
                ),
                io.Image.Input(
                    "sources", optional=True, tooltip="Source images to edit: one for all prompts, or one per prompt."
                ),
                *student_inputs(),
                io.Int.Input("samples", default=1, min=1, max=64, tooltip="Images per prompt. GenEval uses 4."),
                io.Int.Input(
                    "limit", default=16, min=0, max=5000, tooltip="Maximum number of prompts. 0: all prompts."
                ),
                *guidance_inputs(),
                *sampling_inputs(new_seeds=False, steps=28),
            ],
            outputs=[
                io.Image.Output("pictures", display_name="images", tooltip="All images, in the order of the prompts."),
                io.String.Output("folder", display_name="folder", tooltip="Path of the output folder."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name, **others):
        return stamp(lora_choices().get(one("lora_name", lora_name)))

    @classmethod
    def validate_inputs(cls, name=None, prompts=None, lora_name=NONE, lora=ABSENT, sources=ABSENT, bucket=ABSENT):
        from ..danceopd_core.evaluation.short_list import eval_folder

        given, faults = widget(prompts), []
        if bucket is ABSENT and given is not None and not prompts_of([given], "prompts"):
            faults.append("prompts: there are none: write at least one line, or wire in a bucket")
        if bucket is not ABSENT and (sources is not ABSENT or (given or "").strip()):
            faults.append(
                "bucket: prompts or sources are given too: clear and disconnect them, or disconnect the bucket"
            )
        if widget(name) is not None:
            faults.append(told(lambda: eval_folder(output_folder(), widget(name))))
        return faults_of(*faults, _lora_fault(lora_name), both_loras(lora_name, lora))

    @classmethod
    def execute(cls, prompts, sources=None, **inputs):
        return cls._evaluate(prompts_of(prompts, "prompts"), pictures_of(sources, "sources"), **single(inputs))

    @classmethod
    def _evaluate(
        cls, prompts, pictures, model, layout, name, lora_name, strength, samples, limit, guidance, negative, steps,
        seed, width, height, bucket=None, lora=None,
    ):  # fmt: skip
        from ..danceopd_core.evaluation.generate import GenerationConfig
        from ..danceopd_core.evaluation.short_list import benchmark_prompts, eval_folder, evaluate, short_list_items
        from ..danceopd_core.runs.plans.opening import size_or_default

        size = size_or_default(model.folder, width, height)
        if layout == "geneval":  # edits have the sizes of their sources
            check_size(model, *size)
        config = GenerationConfig(samples, steps, guidance, negative, seed, *size, device=device_name())
        chosen_bucket = None if bucket is None else bucket.bucket
        items = short_list_items(prompts, pictures, chosen_bucket, config, readable_folders())
        folder, selected = eval_folder(output_folder(), name), benchmark_prompts(items[: limit or None], layout)
        student, host = student_spec(lora, lora_name, strength), ComfyHost(cls.hidden.unique_id, steps)
        with workspace(training=False):
            images = evaluate(model, student, selected, layout, config, folder, host)
        return io.NodeOutput(images, str(folder))
