"""DanceOPD for ComfyUI: distil many image-generation capabilities into one LoRA."""

if __package__:  # loaded by ComfyUI, not collected by a test runner in this folder
    from .nodes.extension import comfy_entrypoint

    WEB_DIRECTORY = "./web"
    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
