"""A custom node pack for a test's server: CLIPLoader builds its text encoders in the sizes of the stand-in files."""

import json
from pathlib import Path

import comfy.sd
import folder_paths

LOAD = comfy.sd.load_clip
NODE_CLASS_MAPPINGS = {}


def load_small_clip(*args, model_options=None, **more):
    settings = json.loads((Path(folder_paths.models_dir) / "small_encoders.json").read_text(encoding="utf-8"))
    return LOAD(*args, model_options={**(model_options or {}), **settings}, **more)


comfy.sd.load_clip = load_small_clip
