"""The runs below ComfyUI's output folder: listed, published, deleted."""
