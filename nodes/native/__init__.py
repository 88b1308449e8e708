"""ComfyUI's own MODEL, CLIP and VAE as a backbone: with `_comfy`, the only code that imports ComfyUI."""
