"""The node for what is trained."""

from __future__ import annotations

from ..danceopd_core.errors import InputError
from ..danceopd_core.recipe.schema import Student
from ._comfy import NONE, chosen, io, lora_choices, stamp
from .sockets import CATEGORY, StudentSocket

FRESH = "fresh"


class StudentLora(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Student",
            display_name="Student LoRA",
            category=CATEGORY,
            description="What is trained. Where it starts decides more than the loss does: fresh, or a LoRA to go on "
            "from, which brings its own rank, alpha and targets; or fresh over a LoRA that stays as it is.",
            search_aliases=["danceopd", "lora rank", "continue lora"],
            inputs=[
                io.Combo.Input(
                    "start",
                    options=[FRESH, *(name for name in lora_choices() if name != "none")],
                    default=FRESH,
                    tooltip="A fresh LoRA, or one of ComfyUI's loras folders to train on.",
                ),
                io.Int.Input("rank", default=16, min=1, max=1024, tooltip="Rank of a fresh LoRA."),
                io.Float.Input(
                    "alpha",
                    default=0.0,
                    min=0.0,
                    max=4096.0,
                    step=1.0,
                    advanced=True,
                    tooltip="Alpha of a fresh LoRA; 0 takes the rank.",
                ),
                io.String.Input(
                    "targets",
                    default="",
                    advanced=True,
                    tooltip="Endings of the layers that a fresh LoRA adapts, with commas between; empty takes the "
                    "model family's own.",
                ),
                io.Combo.Input(
                    "over",
                    options=list(lora_choices()),
                    default=NONE,
                    optional=True,
                    advanced=True,
                    tooltip="A LoRA that stays frozen under a fresh student. The file that is saved holds both.",
                ),
            ],
            outputs=[StudentSocket.Output("student", display_name="student", tooltip="For Train Student LoRA.")],
        )

    @classmethod
    def fingerprint_inputs(cls, start, over=NONE, **others):
        return stamp(lora_choices().get(start), lora_choices().get(over))

    @classmethod
    def execute(cls, start, rank, alpha, targets, over=NONE):
        under = chosen(lora_choices(), over, "over")
        if start != FRESH:
            if under:
                raise InputError(
                    f"over: only a fresh student lies over a frozen LoRA: set start to {FRESH}, or over to {NONE}"
                )
            return io.NodeOutput(Student(start=chosen(lora_choices(), start, "start")))
        names = tuple(name.strip() for name in targets.split(",") if name.strip())
        return io.NodeOutput(Student(rank=rank, alpha=alpha or None, targets=names, base_lora=under))
