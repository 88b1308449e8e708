"""The node for what is trained."""

from __future__ import annotations

from ..danceopd_core.errors import InputError
from ..danceopd_core.recipe.schema import Student
from ._comfy import NONE, chosen, io, lora_choices, stamp
from .header_checks import faults_of, lora_check
from .sockets import CATEGORY, StudentSocket

FRESH = "fresh"
BOTH = f"over: only a fresh student lies over a frozen LoRA: set start to {FRESH}, or over to {NONE}"


class StudentLora(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_Student",
            display_name="Student LoRA",
            category=CATEGORY,
            description="The LoRA to train: a new LoRA, an existing LoRA to continue from, or a new LoRA on top of a "
            "frozen base LoRA. The initial weights affect the result more than the loss function does.",
            search_aliases=["danceopd", "lora rank", "continue lora"],
            inputs=[
                io.Combo.Input(
                    "start",
                    options=[FRESH, *(name for name in lora_choices() if name != "none")],
                    default=FRESH,
                    tooltip="fresh: a new LoRA. Otherwise the LoRA from ComfyUI's loras folders to continue from; it "
                    "keeps its rank, alpha and target layers.",
                ),
                io.Int.Input(
                    "rank",
                    default=16,
                    min=1,
                    max=1024,
                    tooltip="Rank of a new LoRA. Typical: 16 for the embedded model, 32 to 128 for large models.",
                ),
                io.Float.Input(
                    "alpha",
                    default=0.0,
                    min=0.0,
                    max=4096.0,
                    step=1.0,
                    advanced=True,
                    tooltip="Alpha of a new LoRA, which is scaled by alpha / rank. 0: alpha = rank.",
                ),
                io.String.Input(
                    "targets",
                    default="",
                    advanced=True,
                    tooltip="Layers that a new LoRA adapts: suffixes of module names, separated by commas, for "
                    "example to_q, to_k, to_v. Empty: the defaults of the model family.",
                ),
                io.Combo.Input(
                    "over",
                    display_name="base LoRA",
                    options=list(lora_choices()),
                    default=NONE,
                    optional=True,
                    advanced=True,
                    tooltip="LoRA that stays frozen below a new student; requires start = fresh. The saved file holds "
                    "both as one LoRA, whose rank is the sum of the two.",
                ),
            ],
            outputs=[
                StudentSocket.Output("student", display_name="student", tooltip="Student LoRA, for Train Student LoRA.")
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, start, over=NONE, **others):
        return stamp(lora_choices().get(start), lora_choices().get(over))

    @classmethod
    def validate_inputs(cls, start=FRESH, over=NONE):
        choices = lora_choices()
        starts = lora_check("start", {FRESH: None, **choices}, start)
        overs = lora_check("over", choices, over)
        both = start not in (None, FRESH) and over not in (None, NONE)
        return faults_of(starts, overs, BOTH if both else "")

    @classmethod
    def execute(cls, start, rank, alpha, targets, over=NONE):
        under = chosen(lora_choices(), over, "over")
        if start != FRESH:
            if under:
                raise InputError(BOTH)
            return io.NodeOutput(Student(start=chosen(lora_choices(), start, "start")))
        names = tuple(name.strip() for name in targets.split(",") if name.strip())
        return io.NodeOutput(Student(rank=rank, alpha=alpha or None, targets=names, base_lora=under))
