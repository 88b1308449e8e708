"""Graphs over models that ComfyUI has loaded, made of the quick start and Load Shapes."""

import json

import numpy as np
from PIL import Image

from .graphs import node_of, short

LOADERS = {
    "1": {
        "class_type": "DanceOPD_NativeModel",
        "inputs": {
            "model": ["loader", 0], "clip": ["loader", 1], "vae": ["loader", 2], "scheduler": "simple", "edits": "auto",
        },
    },
    "loader": {"class_type": "DanceOPD_LoadShapes", "inputs": {}},
}  # fmt: skip


def native(run, **train):
    """The quick start over Load Shapes, with a stock sampler beside Sample Student."""
    graph = {key: node for key, node in short("quickstart", run, **train).items() if key != "1"} | LOADERS
    drop = ("DanceOPD_Sample", "DanceOPD_Compare", "SaveImage", "PreviewImage")
    graph = {key: node for key, node in graph.items() if node["class_type"] not in drop}
    return json.loads(json.dumps(graph))


def with_samplers(graph, seed=5, steps=4, **more):
    """Pictures of one prompt and noise: by Sample Student, and by KSampler on the MODEL with the LoRA from a stock node
    ("theirs"), on the MODEL that Train Student LoRA gives ("direct"), and on `more` MODELs by name."""
    train = node_of(graph, "Train")
    text = "a red circle"
    sampler = {
        "positive": ["text", 0],
        "negative": ["text", 0],
        "latent_image": ["empty", 0],
        "seed": seed,
        "steps": steps,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "denoise": 1.0,
    }
    graph |= {
        "ours": {
            "class_type": "DanceOPD_Sample",
            "inputs": {
                "model": ["1", 0], "task": "auto", "prompt": text, "lora": [train, 0], "lora_name": "none",
                "strength": 1.0, "guidance": 1.0, "negative": "", "steps": steps, "seed": seed, "width": 64,
                "height": 64,
            },
        },
        "lora": {
            "class_type": "LoraModelLoader",
            "inputs": {"model": ["loader", 0], "lora": [train, 0], "strength_model": 1.0, "bypass": False},
        },
        "text": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["loader", 1], "text": text}},
        "empty": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "save ours": {"class_type": "SaveImage", "inputs": {"images": ["ours", 0], "filename_prefix": "ours"}},
    }  # fmt: skip
    for name, model in (("theirs", ["lora", 0]), ("direct", [train, 5]), *more.items()):
        graph |= {
            f"sampler {name}": {"class_type": "KSampler", "inputs": {"model": model, **sampler}},
            f"decode {name}": {
                "class_type": "VAEDecode",
                "inputs": {"samples": [f"sampler {name}", 0], "vae": ["loader", 2]},
            },
            f"save {name}": {
                "class_type": "SaveImage",
                "inputs": {"images": [f"decode {name}", 0], "filename_prefix": name},
            },
        }
    return graph


def picture(base, entry, node):
    (found,) = entry["outputs"][node]["images"]
    return np.asarray(Image.open(base / "output" / found["subfolder"] / found["filename"])).astype(int)
