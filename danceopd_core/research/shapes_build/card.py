"""The model card of the embedded model."""

from __future__ import annotations

from pathlib import Path

from ..shapes_build import architecture as parts
from .build_context import BuildPlan

CARD = """# The embedded model

A Z-Image pipeline (diffusers' own classes) of {millions:.1f} million transformer parameters that knows the world of
`danceopd_core/shapes`: pictures of one to three shapes at 64 px. Made by `danceopd shapes build --seed {seed}` from
rendered pictures alone; no third party's data or weights are in it. Apache-2.0.

| part | what it is |
|---|---|
| `transformer` | the base, text-to-image only, with caption dropout: {scenes} |
| `vae` | its encoder is a projection of 4 x 4 patches (`projection.py`), its decoder draws sharp pictures from it |
| `text_encoder`, `tokenizer` | a Qwen3 of random weights, never trained; every word of the language is one token |
| `loras/local_edit` | add, replace, remove, recolour: {steps[local_edit]} |
| `loras/edit` | begun where `local_edit`'s first phase ended, all six kinds of edits: {steps[edit]} |
| `loras/global_edit` | background and style: {steps[global_edit]} |
| `realism` | a full checkpoint, trained on from the base on shaded pictures, {realism.steps} steps |

The LoRAs have rank {rank}. An edit LoRA of edits alone, without weight decay, grows longer than the base's own
weights, and its text-to-image or an edit of another kind can hardly be taught to it. So the second part of
`local_edit`'s and `edit`'s steps, and all of `global_edit`'s, have weight decay {decay:g}, and one step in
{local_edit}, {edit} and {global_edit} is on captions, with the base's own velocities as targets.

Half of all captions and edits never occurred in training. `danceopd shapes score` prints the judge's table on those.
Weights are stored in half precision.
"""


def write_card(
    plan: BuildPlan, out: Path, rank: int, phases: dict[str, tuple[int, int]], every: dict[str, int]
) -> None:
    """phases: by edit teacher, the steps of its rough and its calm phase; every: how often it is reminded."""
    millions = sum(p.numel() for p in parts.transformer(plan.width, plan.heads, plan.layers).parameters()) / 1e6
    steps = {name: " + ".join(str(count) for count in counts if count) + " steps" for name, counts in phases.items()}
    text = CARD.format(
        millions=millions,
        seed=plan.seed,
        scenes=f"{plan.loose.steps} steps of {plan.loose.batch} on loose scenes, {plan.base.steps} on the world's own",
        steps=steps,
        realism=plan.realism,
        rank=rank,
        decay=plan.calm.decay,
        **every,
    )
    (out / "README.md").write_text(text, encoding="utf-8")
