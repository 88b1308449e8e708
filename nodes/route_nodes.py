"""Nodes for what is asked: buckets of prompts, and the routes that bind them to teachers."""

from __future__ import annotations

from pathlib import Path

from ..danceopd_core.data.bucket_files import lines_of, write_bucket
from ..danceopd_core.errors import InputError
from ..danceopd_core.recipe.graph import PromptSpec, RouteSpec, RoutesSpec
from ..danceopd_core.recipe.schema import Bucket
from ._comfy import as_arrays, chosen, csv_choices, io, output_folder, show_text, stamp
from .sockets import CATEGORY, BucketSocket, FieldSocket, RoutesSocket

ROUTES = 8
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
            description="The prompts of one route: lines of text, a CSV of the input folder, or captions and edits of "
            "the embedded world. With source pictures the prompts are edits.",
            search_aliases=["danceopd", "prompts", "dataset", "captions", "edit instructions"],
            inputs=[
                io.DynamicCombo.Input(
                    "content",
                    tooltip="Where the prompts come from.",
                    options=[
                        io.DynamicCombo.Option(
                            "lines of text",
                            [
                                io.String.Input(
                                    "prompts",
                                    default="",
                                    multiline=True,
                                    tooltip="One prompt a line; lines that start with # are left out.",
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
                                    tooltip="Captions, or edits with their source pictures, of flat shapes.",
                                ),
                                io.Int.Input(
                                    "count",
                                    default=0,
                                    min=0,
                                    max=5000,
                                    tooltip="How many prompts; 0 is a fair number of each category.",
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
                                    tooltip="A CSV below ComfyUI's input folder with the columns prompt, task, "
                                    "source_image and target_image; paths are relative to the CSV.",
                                ),
                                io.String.Input(
                                    "task", default="", tooltip="Only the rows of this task; empty takes all of them."
                                ),
                            ],
                        ),
                    ],
                ),
                io.Image.Input(
                    "source_images",
                    optional=True,
                    tooltip="Pictures that the lines of text edit: one for all lines, or one a line.",
                ),
                io.Image.Input(
                    "target_images",
                    optional=True,
                    tooltip="What the edits shall give, for the method offpolicy: one a line.",
                ),
            ],
            outputs=[BucketSocket.Output("bucket", display_name="bucket", tooltip="For the Route Selector.")],
        )

    @classmethod
    def fingerprint_inputs(cls, content=None, **others):
        file = content.get("file") if isinstance(content, dict) else others.get("content.file")
        return stamp(csv_choices().get(file or ""))

    @classmethod
    def execute(cls, content, source_images=None, target_images=None):
        sources = as_arrays(source_images, "source_images")
        targets = as_arrays(target_images, "target_images")
        if (sources or targets) and content["content"] != "lines of text":
            raise InputError("source_images: they belong to lines of text: choose that content, or unplug the pictures")
        if content["content"] == "embedded world":
            kind = chosen(KINDS, content["kind"], "kind")
            return io.NodeOutput(PromptSpec(Bucket(shapes=kind, count=content["count"]), content["kind"]))
        if content["content"] == "CSV file":
            file = chosen(csv_choices(), content["file"], "file")
            task = content["task"].strip() or None
            return io.NodeOutput(PromptSpec(Bucket(csv=file, task=task), task or Path(file).stem))
        prompts = lines_of(content["prompts"])
        if not prompts:
            raise InputError("prompts: the bucket is empty: write at least one line")
        if not sources and not targets:
            return io.NodeOutput(PromptSpec(Bucket(prompts=prompts), "prompts"))
        table = write_bucket(output_folder() / "danceopd-buckets", prompts, sources, targets)
        return io.NodeOutput(PromptSpec(Bucket(csv=str(table)), "edits" if sources else "prompts"))


class RouteSelector(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Routes",
            display_name="Route Selector",
            category=CATEGORY,
            description="Binds each teacher to its own prompts, and says how an update chooses among these routes.",
            search_aliases=["danceopd", "router", "weights", "multi-teacher"],
            inputs=[
                io.DynamicCombo.Input(
                    "routes",
                    tooltip="How many routes there are; each has a field, a bucket and a weight.",
                    options=[
                        io.DynamicCombo.Option(str(count), [socket for i in range(count) for socket in _route(i + 1)])
                        for count in range(1, ROUTES + 1)
                    ],
                ),
                io.Combo.Input(
                    "router",
                    options=["weighted", "round_robin", "all"],
                    default="weighted",
                    tooltip="weighted: each update draws one route by weight. round_robin: in turn. all: every update "
                    "has a part of each route.",
                ),
            ],
            outputs=[
                RoutesSocket.Output("selected", display_name="routes", tooltip="For Train Student LoRA and Compare."),
                io.String.Output("shares", display_name="shares", tooltip="The share of each route, as text."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, routes, router):
        count = int(routes["routes"])
        specs = [
            RouteSpec(routes[f"field{i}"], routes[f"bucket{i}"], routes[f"weight{i}"]) for i in range(1, count + 1)
        ]
        found = RoutesSpec(tuple(specs), router)
        shares = zip(found.names(), found.shares(), strict=True)
        text = "\n".join(f"{share:.0%} {name}" for name, share in shares)
        show_text(text, cls.hidden.unique_id)
        return io.NodeOutput(found, text)


class LearnedRouterNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_LearnedRouter",
            display_name="Learned Router",
            category=CATEGORY,
            description="Gives prompts that have no route to the teachers: a small classifier of prompt embeddings "
            "learns from the routes' own prompts which of them each other prompt joins, once, before training.",
            search_aliases=["danceopd", "router", "classifier", "unlabelled prompts", "unlabeled", "auto routing"],
            inputs=[
                RoutesSocket.Input(
                    "routes",
                    tooltip="From the Route Selector: their prompts are what the router learns from, at least 4 "
                    "different ones a route.",
                ),
                BucketSocket.Input(
                    "unlabelled",
                    tooltip="Prompts that no route has. With a source picture they join a route of edits, without one "
                    "a route of text.",
                ),
                io.Float.Input(
                    "holdout",
                    default=0.25,
                    min=0.05,
                    max=0.9,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="The part of each route's prompts that the router does not learn from, to measure how "
                    "often it is right.",
                ),
            ],
            outputs=[
                RoutesSocket.Output(
                    "routed",
                    display_name="routes",
                    tooltip="For Train Student LoRA. The accuracy is in the run's router.json.",
                )
            ],
        )

    @classmethod
    def execute(cls, routes, unlabelled, holdout=0.25):
        return io.NodeOutput(routes.taking(unlabelled, holdout))


def _route(number: int) -> list[io.Input]:
    return [
        FieldSocket.Input(f"field{number}", tooltip=f"The teacher of route {number}."),
        BucketSocket.Input(f"bucket{number}", tooltip=f"The prompts of route {number}."),
        io.Float.Input(
            f"weight{number}",
            default=1.0,
            min=0.0,
            max=1000.0,
            step=0.1,
            tooltip=f"How often route {number} is drawn, compared with the others.",
        ),
    ]
