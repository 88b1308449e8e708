"""The embedded model's folder, with random weights of a tenth of its size and random teachers."""

from pathlib import Path

import torch

from danceopd_core.research.shapes_build import architecture
from danceopd_core.research.shapes_build.edit_teachers import TEACHERS
from danceopd_core.research.shapes_build.pipeline import write_pipeline
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora_io import write_lora

from .loras import random_lora
from .tiny import randomize


def save_tiny_world(folder: Path) -> Path:
    torch.manual_seed(0)
    network = randomize(architecture.transformer(32, 2, 1), 0)
    tokenizer = architecture.tokenizer()
    write_pipeline(folder, tokenizer, architecture.text_encoder(len(tokenizer)))
    network.save_pretrained(folder / "transformer")
    randomize(architecture.vae(), 1).save_pretrained(folder / "vae")
    (folder / "loras").mkdir()
    for number, name in enumerate(TEACHERS):
        write_lora(folder / "loras" / f"{name}.safetensors", random_lora(linear_shapes(network), 4, 2 + number))
    randomize(network, 9).save_pretrained(folder / "realism")
    return folder
