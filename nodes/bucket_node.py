"""The node for buckets of prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..danceopd_core.data.bucket_files import text_bucket
from ..danceopd_core.data.bucket_text import bucket_text, is_counted
from ..danceopd_core.data.buckets import load_bucket
from ..danceopd_core.data.roots import file_of
from ..danceopd_core.data.tables import table_faults
from ..danceopd_core.errors import InputError, naming
from ..danceopd_core.recipe.graph import PromptSpec
from ..danceopd_core.recipe.schema import Bucket
from ._comfy import chosen, csv_choices, io, output_folder, readable_folders, show_text, size_of, stamp, wildcard_files
from .header_checks import faults_of
from .lists import one, pictures_of, prompts_of, single
from .run_checks import limits, told, widgets
from .sockets import CATEGORY, BucketSocket

QUICK_BYTES, QUICK_PICTURES = 4 * 2**20, 200
"""Of a table that is read before a prompt is queued, and of it the pictures whose headers are."""
MOST_BYTES, MOST_PICTURES = 32 * 2**20, 10_000
"""The same when the node runs; what is larger is checked when the training begins."""
KINDS = {
    "text-to-image": "t2i",
    "edits": "edit",
    "local edits": "local",
    "global edits": "global",
    **{f"only {name}": name for name in ("single", "two", "count", "colour", "position", "colour_attribute")},
    **{f"only {name}": name for name in ("add", "replace", "remove", "recolour", "background", "style")},
}
"""The embedded world's kinds of prompts, as the widget names them (`data.KINDS`)."""


class PromptBucket(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Bucket",
            display_name="Prompt Bucket",
            category=CATEGORY,
            description="The prompts of one route: lines of text, a CSV or JSONL file or a folder of captioned "
            "pictures from the input folder, or captions and edits of the embedded model. Prompts with source images "
            "are edit instructions.",
            search_aliases=["danceopd", "prompts", "dataset", "captions", "edit instructions"],
            is_input_list=True,
            inputs=[
                io.DynamicCombo.Input(
                    "content",
                    tooltip="Source of the prompts.",
                    options=[
                        io.DynamicCombo.Option(
                            "lines of text",
                            [
                                io.String.Input(
                                    "prompts",
                                    default="",
                                    multiline=True,
                                    tooltip="One prompt per line. Lines that start with # are ignored. Of a connected "
                                    "list, each text is one prompt.",
                                )
                            ],
                        ),
                        io.DynamicCombo.Option(
                            "embedded world",
                            [
                                io.Combo.Input(
                                    "kind",
                                    options=list(KINDS),
                                    default="text-to-image",
                                    tooltip="text-to-image: captions of synthetic images of shapes. edits: edit "
                                    "instructions with source and target images. The other kinds restrict the "
                                    "categories.",
                                ),
                                io.Int.Input(
                                    "count",
                                    default=0,
                                    min=0,
                                    max=5000,
                                    tooltip="Number of prompts, divided equally among the categories. 0: 200 per "
                                    "category, at most 600 in total.",
                                ),
                            ],
                        ),
                        io.DynamicCombo.Option(
                            "CSV file",
                            [
                                io.Combo.Input(
                                    "file",
                                    options=["none", *csv_choices()],
                                    default="none",
                                    tooltip="CSV or JSONL file in ComfyUI's input folder with the columns prompt, "
                                    "task, source_image and target_image; only prompt is required. Image paths are "
                                    "relative to the folder of the file. A name that ends in / is a folder of pictures "
                                    "with captions: name.png and name.txt, or name_source.png, name_target.png and "
                                    "name.txt.",
                                ),
                                io.String.Input(
                                    "task",
                                    default="",
                                    tooltip="Uses only the rows with this value in the column task. Empty: all rows.",
                                ),
                            ],
                        ),
                    ],
                ),
                io.Image.Input(
                    "source_images",
                    optional=True,
                    tooltip="Source images for lines of text, which are then edit instructions: one image for all "
                    "lines, or one per line. Batches and lists, of any sizes.",
                ),
                io.Image.Input(
                    "target_images",
                    optional=True,
                    tooltip="Target images, one per line of text. Required only by the method offpolicy.",
                ),
                io.Int.Input(
                    "wildcards",
                    default=0,
                    min=0,
                    max=10000,
                    optional=True,
                    advanced=True,
                    tooltip="How often each prompt is taken with its wildcards drawn anew by the seed of the run: "
                    "choices in braces with a vertical bar between them, and __colour__ for a line of colour.txt in "
                    "input/wildcards. 0: plain text.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[
                BucketSocket.Output(
                    "bucket",
                    display_name="bucket",
                    tooltip="Prompts, for Route Selector, Learned Router and Evaluate Short List.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, content=None, **others):
        file = content.get("file") if isinstance(content, dict) else others.get("content.file")
        return stamp(csv_choices().get(one("file", file) or ""))

    @classmethod
    def validate_inputs(cls, content=None, **others):
        own = widgets(content or {})
        options = next(i for i in cls.define_schema().inputs if i.id == "content").options
        option = next((o for o in options if o.key == own.get("content")), None)
        faults = [] if option is None else [*limits(option.inputs, own)]
        if own.get("content") == "lines of text" and "prompts" in own and not prompts_of([own["prompts"]], "prompts"):
            faults.append("prompts: the bucket is empty: write at least one line")
        if own.get("content") == "CSV file" and not faults and "file" in own:
            faults += _table_faults(own["file"], str(own.get("task", "")), QUICK_BYTES, QUICK_PICTURES)
        if own.get("content") in ("CSV file", "embedded world") and {"source_images", "target_images"} & set(others):
            faults.append(NO_PICTURES)
        return faults_of(*faults)

    @classmethod
    def execute(cls, content=None, source_images=None, target_images=None, wildcards=0, **left):
        wildcards = one("wildcards", wildcards)
        spec = cls._spec(content, source_images, target_images)
        if spec.bucket.shapes is None:
            files = wildcard_files() if wildcards else None
            spec = replace(spec, bucket=replace(spec.bucket, wildcards=wildcards, wildcard_files=files))
            if is_counted(spec.bucket):
                with naming("content"):
                    items = load_bucket(spec.bucket, seed=0, roots=readable_folders())
                show_text(bucket_text(spec.bucket, items), cls.hidden.unique_id)
        return io.NodeOutput(spec)

    @classmethod
    def _spec(cls, content, source_images, target_images) -> PromptSpec:
        if content is None:  # ComfyUI leaves out what its dynamic combo does not have
            raise InputError("content: it is none of the list: choose one")
        sources = pictures_of(source_images, "source_images")
        targets = pictures_of(target_images, "target_images")
        texts = content.get("prompts")
        content = single({name: value for name, value in content.items() if name != "prompts"})
        if (sources or targets) and content["content"] != "lines of text":
            raise InputError(NO_PICTURES)
        if content["content"] == "embedded world":
            kind = chosen(KINDS, content["kind"], "kind")
            return PromptSpec(Bucket(shapes=kind, count=content["count"]), content["kind"])
        if content["content"] == "CSV file":
            with naming("file"):
                file = str(file_of(chosen(csv_choices(), content["file"], "file"), Path(), readable_folders()))
            if faults := _table_faults(content["file"], content["task"], MOST_BYTES, MOST_PICTURES):
                raise InputError("\n".join(faults))
            task = content["task"].strip() or None
            return PromptSpec(Bucket(csv=file, task=task), task or Path(file).stem)
        prompts = prompts_of(texts, "prompts")
        return text_bucket(output_folder() / "danceopd-buckets", prompts, sources, targets)


NO_PICTURES = "source_images: they belong to lines of text: choose that content, or disconnect them"


def _table_faults(name: str, task: str, most_bytes: int, most_pictures: int) -> list[str]:
    """What is wrong with a CSV of the list, as far as can be seen quickly."""
    fault = told(lambda: chosen(csv_choices(), name, "file"))
    if fault:
        return [fault]
    file, roots = Path(csv_choices()[name]), readable_folders()
    if fault := told(lambda: file_of(str(file), Path(), roots)):  # before anything is learned of what lies outside
        return [f"file: {fault}"]
    if size_of(file) > most_bytes:
        return []
    return [f"file: {fault}" for fault in table_faults(file, task.strip() or None, roots, most_pictures)]
