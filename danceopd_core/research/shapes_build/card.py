"""The model card of the embedded model."""

from __future__ import annotations

from pathlib import Path

from ..shapes_build import architecture
from .build_context import BuildPlan
from .edit_teachers import RANK, TEACHERS

CARD = """# The embedded model

A Z-Image pipeline (diffusers' own classes) with {millions:.1f} million transformer parameters, trained on the world of
`danceopd_core/shapes`: images of one to three shapes at 64 px. Made by `danceopd shapes build --seed {seed}` from
rendered images alone; it contains no third-party data or weights. Apache-2.0.

| part | contents |
|---|---|
| `transformer` | the base, text-to-image only, with caption dropout: {base} |
| `vae` | encoder: a linear projection of 4 x 4 patches (`projection.py`); decoder: sharp images from it |
| `text_encoder`, `tokenizer` | a Qwen3 with random weights, never trained; every word of the language is one token |
| `loras/local_edit` | add, replace, remove, recolour: {steps[local_edit]} |
| `loras/edit` | initialised with `local_edit` after its first phase, all six kinds of edits: {steps[edit]} |
| `loras/global_edit` | background and style: {steps[global_edit]} |
| `realism` | a full checkpoint, the base trained further on shaded images, {realism} steps |

The LoRAs have rank {rank}. An edit LoRA trained on edits alone, without weight decay, grows larger than the base's
weights, and then hardly learns text-to-image or other kinds of edits. So the second phase of `local_edit` and `edit`,
and all of `global_edit`, have weight decay {weight_decay:g}, and one step in
{replay[local_edit]}, {replay[edit]} and {replay[global_edit]} is on captions, with the base's velocities as targets.

Half of all captions and edits are held out from training. `danceopd shapes score` prints the scores on those.
Weights are stored in half precision.
"""


def write_card(plan: BuildPlan, out: Path) -> None:
    network = architecture.transformer(plan.width, plan.heads, plan.layers)
    phases = {name: [str(count) for count in teacher.steps(plan) if count] for name, teacher in TEACHERS.items()}
    first = f"{plan.pretraining.steps} steps of {plan.pretraining.batch} on scenes of free layout"
    text = CARD.format(
        millions=sum(parameter.numel() for parameter in network.parameters()) / 1e6,
        seed=plan.seed,
        base=f"{first}, {plan.base.steps} on the world's own",
        steps={name: " + ".join(counts) + " steps" for name, counts in phases.items()},
        realism=plan.realism.steps,
        rank=RANK,
        weight_decay=plan.regularised.weight_decay,
        replay={name: teacher.replay_every for name, teacher in TEACHERS.items()},
    )
    (out / "README.md").write_text(text, encoding="utf-8")
