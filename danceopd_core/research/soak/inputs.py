"""Sound files of each kind that attacks begin with."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

SHAPES = {f"layers.{layer}.attention.{part}": (32, 32) for layer in (0, 1) for part in ("to_q", "to_k", "to_v")}
"""Of the network that LoRAs are read for."""

RECIPE = """\
model: shapes
teachers:
  base: {guidance: 2, negative: ""}
  edit: {lora: "shapes:edit", strength: 0.8}
routes:
  - {name: draw, teacher: base, bucket: {shapes: t2i, count: 8}}
  - name: edit
    teacher: {base: 0.25, edit: 0.75}
    bucket: {csv: table.csv, task: default}
    weight: 2
student: {rank: 4, targets: [to_q, to_k]}
optimizer: {lr: 1e-4, betas: [0.9, 0.99], schedule: cosine, warmup: 2}
query: {k: 1, sigma: [0.1, 0.9]}
steps: 3
width: 64
height: 64
dtype: float32
learned_router: {bucket: {prompts: [a red circle, two blue stars]}, holdout: 0.25}
out: run
"""

TABLE = """\
prompt,task,source_image,target_image,caption_dict
"a red circle, alone",default,,,
make it blue,edit,picture.png,picture.png,
,default,,,"{""prompt"": ""a star""}"
ein Kreis,default,,,"{'caption': 'x'}"
"""

ROWS = "".join(
    json.dumps({"prompt": f"make it {colour}", "source": "picture.png", "id": number}) + "\n"
    for number, colour in enumerate(("red", "blue"))
)
HISTORY = "".join(
    json.dumps({"update": update, "losses": {"a": 0.5, "b": None}, "errors": {"a": 0.1}, "lr": 1e-4}) + "\n"
    for update in range(1, 6)
)
STATUS: dict[str, Any] = {
    "node": "9", "display_node": "9", "run": "run", "state": "stopped", "message": "", "update": 3, "steps": 6,
    "losses": {"a": 0.5}, "validation": {"a": 0.1}, "rate": 1.5, "eta": 2.0, "memory_mb": 10.0,
    "pictures": [{"prompt": "a", "url": "/danceopd/runs/run/pictures/a.png"}], "asked": [[0.5, 1.0]], "time": 1.0,
}  # fmt: skip


def picture(kind: str) -> bytes:
    from PIL import Image

    data = BytesIO()
    image = Image.new("RGBA" if kind == "PNG" else "RGB", (24, 16), (200, 30, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(data, kind, **({"exif": exif.tobytes()} if kind in ("JPEG", "PNG", "WEBP") else {}))
    return data.getvalue()


def lora(layout: str, described: bool = True) -> bytes:
    """A small LoRA for `SHAPES`. layout: peft, diffusers or kohya. described: with its settings in the metadata."""
    import torch
    from safetensors.torch import save

    tensors = {}
    for module in SHAPES:
        if layout == "kohya":
            name = f"lora_unet_{module.replace('.', '_')}"
            down, up = f"{name}.lora_down.weight", f"{name}.lora_up.weight"
            tensors[f"{name}.alpha"] = torch.tensor(2.0)
        else:
            name = f"base_model.model.{module}" if layout == "peft" else f"transformer.{module}"
            down, up = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        tensors |= {down: torch.ones(4, 32), up: torch.ones(32, 4)}
    config = {
        "r": 4, "lora_alpha": 8, "target_modules": ["to_q", "to_k"], "alpha_pattern": {"to_q": 4}, "use_rslora": False,
        "rank_pattern": {"layers.0.attention.to_q": 4}, "peft_type": "LORA",
    }  # fmt: skip
    metadata = {"lora_adapter_metadata": json.dumps(config), "ss_network_dim": "4", "ss_network_alpha": "8.0"}
    return save(tensors, metadata if described else {})


def state() -> dict[str, Any]:
    """A tree as a training's state is."""
    import torch

    tensor = torch.arange(6.0).reshape(2, 3)
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": tensor + 1}}, "param_groups": [{"lr": 0.1}]}
    return {"update": 3, "student": {"a": tensor}, "optimizer": optimizer, "samples": {"draw": [3, 0]}, "under": ""}
