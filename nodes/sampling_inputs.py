"""The inputs that Sample Student, Compare Fields and Evaluate Short List share."""

from __future__ import annotations

from ._comfy import io, lora_choices


def student_inputs() -> list[io.Input]:
    """The student LoRA: connected, or a file by name."""
    return [
        io.LoraModel.Input("lora", optional=True, tooltip="Student LoRA, connected directly from Train Student LoRA."),
        io.Combo.Input(
            "lora_name",
            options=list(lora_choices()),
            default="none",
            tooltip="LoRA from ComfyUI's loras folders. Must be none if lora is connected; with neither, the base "
            "model is used.",
        ),
        io.Float.Input(
            "strength",
            default=1.0,
            min=-10.0,
            max=10.0,
            step=0.05,
            tooltip="LoRA strength. 1 applies the LoRA as trained.",
        ),
    ]


def guidance_inputs() -> list[io.Input]:
    """Guidance scale and negative prompt."""
    return [
        io.Float.Input(
            "guidance",
            default=1.0,
            min=0.0,
            max=30.0,
            step=0.1,
            tooltip="Classifier-free guidance scale. 1: no guidance, one forward pass per step instead of two; "
            "sufficient for a student of guided teachers.",
        ),
        io.String.Input(
            "negative", default="", advanced=True, tooltip="Negative prompt. Used only when guidance is not 1."
        ),
    ]


def sampling_inputs(new_seeds: bool, steps: int = 8) -> list[io.Input]:
    """Steps, seed and size; new_seeds: the page may change the seed after each prompt. steps: the default."""
    return [
        io.Int.Input(
            "steps",
            default=steps,
            min=1,
            max=1000,
            tooltip="Sampling steps. Typical: 8 for the embedded model, 20 to 50 for large models.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**63 - 1,
            control_after_generate=new_seeds,  # explicit False: else the page adds the control to any "seed"
            tooltip="Random seed of the initial noise.",
        ),
        io.Int.Input(
            "width",
            default=0,
            min=0,
            max=8192,
            step=16,
            advanced=True,
            tooltip="Image width in pixels. 0: 64 for the embedded model, 1024 for other models.",
        ),
        io.Int.Input(
            "height",
            default=0,
            min=0,
            max=8192,
            step=16,
            advanced=True,
            tooltip="Image height in pixels. 0: same defaults as width.",
        ),
    ]
