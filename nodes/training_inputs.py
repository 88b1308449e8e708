"""The inputs of Train Student LoRA."""

from __future__ import annotations

from ._comfy import io
from .quality import CUSTOM, PRESETS
from .sockets import RoutesSocket, StudentSocket


def training_inputs() -> list[io.Input]:
    """In the order in which saved workflows hold their values."""
    return [
        RoutesSocket.Input("routes", tooltip="Teachers and their prompts, from Route Selector or Learned Router."),
        StudentSocket.Input("student", tooltip="LoRA to train, from Student LoRA."),
        io.String.Input(
            "name",
            default="student",
            tooltip="Name of the LoRA in output/loras and of the run folder in output/danceopd. An existing "
            "run of the same name with different settings is renamed, not deleted.",
        ),
        io.Combo.Input(
            "method",
            options=["danceopd", "diffusionopd", "flowopd", "offpolicy"],
            default="danceopd",
            advanced=True,
            tooltip="danceopd: queries the teacher at k states of each student rollout. diffusionopd, "
            "flowopd: query it at every state. offpolicy: trains on noised target images instead of rollouts.",
        ),
        io.Int.Input(
            "steps",
            default=120,
            min=1,
            max=1000000,
            tooltip="Optimizer updates. Typical: 100 to 300 for the embedded model, about 3000 for large models.",
        ),
        io.Float.Input(
            "learning_rate",
            default=2e-4,
            min=1e-8,
            max=1.0,
            step=1e-5,
            round=False,
            tooltip="Learning rate of AdamW. Typical: 1e-3 for the embedded model, 1e-4 to 2e-4 for large models.",
        ),
        io.Int.Input(
            "batch",
            default=1,
            min=1,
            max=1024,
            advanced=True,
            tooltip="Batch size: samples per forward pass. Larger batches need more memory.",
        ),
        io.Int.Input(
            "accumulate",
            default=4,
            min=1,
            max=1024,
            advanced=True,
            tooltip="Gradient accumulation: batches per update. More batches give less noisy gradients at the "
            "same memory, but slower updates.",
        ),
        io.Int.Input(
            "rollout_steps",
            default=16,
            min=1,
            max=1000,
            advanced=True,
            tooltip="Sampling steps of a student rollout from noise. Typical: 8 to 16.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**63 - 1,
            control_after_generate=False,
            advanced=True,
            tooltip="Random seed.",
        ),
        io.String.Input(
            "validation_prompts",
            default="",
            multiline=True,
            advanced=True,
            tooltip="Prompts of the validation images shown during training, one per line. Empty: the first "
            "held-out prompt of each route.",
        ),
        io.Int.Input(
            "validate_every",
            default=25,
            min=0,
            max=1000000,
            advanced=True,
            tooltip="Validation interval in updates. 0: validate only at the end.",
        ),
        io.Int.Input(
            "save_every",
            default=100,
            min=1,
            max=1000000,
            advanced=True,
            tooltip="Checkpoint interval in updates. An interrupted run resumes from its last checkpoint.",
        ),
        io.Boolean.Input(
            "resume",
            default=True,
            advanced=True,
            tooltip="Resume a run with the same name and settings that was cancelled or stopped, or that had "
            "fewer steps. A finished run is not trained again: change the seed or the name for a new run.",
        ),
        io.Int.Input(
            "k",
            default=1,
            min=1,
            max=1000,
            advanced=True,
            tooltip="Queried states per rollout, at most rollout_steps. For danceopd and offpolicy.",
        ),
        io.Combo.Input(
            "bias",
            options=["low", "mid", "high", "uniform", "every"],
            default="low",
            advanced=True,
            tooltip="Distribution of the queried states over the rollout. low: towards low sigma, the clean "
            "end. high: towards high sigma, the noise end. mid: towards the middle. uniform: all states "
            "equally likely. every: all states.",
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
            tooltip="Learning-rate schedule.",
        ),
        io.Int.Input(
            "warmup",
            default=0,
            min=0,
            max=1000000,
            advanced=True,
            tooltip="Warmup of the learning rate from 0, in updates. Not available with the schedule constant.",
        ),
        io.Float.Input(
            "ema",
            default=0.0,
            min=0.0,
            max=0.99999,
            step=0.001,
            round=False,
            advanced=True,
            tooltip="Decay of an exponential moving average of the LoRA weights; the saved LoRA then holds "
            "the averaged weights. Typical: 0.99 to 0.999. 0: no averaging.",
        ),
        io.Boolean.Input(
            "gradient_checkpointing",
            default=False,
            advanced=True,
            tooltip="Recomputes activations in the backward pass: much less memory, about 7 % more work. Off: still "
            "done on a GPU, unless more_settings has memory=manual.",
        ),
        io.String.Input(
            "more_settings",
            default="",
            multiline=True,
            advanced=True,
            tooltip="Further recipe settings, one key=value per line: optimizer.clip, optimizer.weight_decay, "
            "query.sigma, eta, group, anchor, ode_kl_weight, memory, aspects, compile.",
        ),
        io.Image.Input(
            "validation_sources",
            optional=True,
            tooltip="Source images for validation_prompts, which are then edit instructions: one for all "
            "prompts, or one per prompt.",
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
            tooltip="Shift of a linear sigma schedule for the rollouts, which replaces the model's own. "
            "Typical: 3 for Z-Image, as in the paper. 0: the model's own schedule.",
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
            tooltip="Lower end of the range of sigma in which the teacher is queried uniformly, instead of by "
            "bias. Sigma is 0 at the clean image and 1 at pure noise.",
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
            tooltip="Upper end of that range. If both ends are 0, bias applies. The panel shows the resulting "
            "query distribution.",
        ),
        io.Combo.Input(
            "quality",
            options=["fast", "paper", "custom"],
            default=CUSTOM,
            optional=True,
            extra_dict={"presets": PRESETS},
            tooltip="How the student is asked. paper: 16 rollout steps, one query near the clean end (k 1, bias low). "
            "fast: the same with 8 steps, at half the cost of a rollout and nearly the quality. Both keep the number "
            "of steps of a diffusers folder that was distilled to few. custom: rollout_steps, k, bias, sigma_low and "
            "sigma_high as they are set; editing one of them selects it.",
        ),
        io.Boolean.Input(
            "private",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Leaves prompts, pictures, paths and the workflow out of the LoRA's metadata and its model card. "
            "Queued again with another value, a finished run is published anew without training.",
        ),
    ]
