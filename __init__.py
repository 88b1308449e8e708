"""DanceOPD for ComfyUI: distil many image-generation capabilities into one LoRA."""

import sys

if "comfy_api" in sys.modules:  # ComfyUI loads a pack; a test runner that collects this folder imports it too
    from .nodes.extension import comfy_entrypoint

    WEB_DIRECTORY = "./web"
    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
