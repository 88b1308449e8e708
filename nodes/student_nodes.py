"""The node for what is trained."""

from __future__ import annotations

from ..danceopd_core.errors import Fault, InputError
from ._comfy import NONE, io, lora_choices, stamp
from .header_checks import faults_of, lora_check
from .sockets import CATEGORY, StudentSocket
from .student_spec import BOTH, FRESH, student_of


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
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
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
        from ..danceopd_core.runs.plans.preflight_weights import check_student
        from .prompt_reading import models_of_student

        student = student_of(start, rank, alpha, targets, over)
        for model in models_of_student(cls.hidden.prompt or {}, str(cls.hidden.unique_id)):
            try:
                check_student(model.folder, student)
            except InputError as error:
                raise InputError(faults=[Fault(WIDGETS[f.setting], f.message) for f in error.faults]) from None
        return io.NodeOutput(student)


WIDGETS = {"student.start": "start", "student.base_lora": "over"}
