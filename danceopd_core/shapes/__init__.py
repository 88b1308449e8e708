"""The embedded world: flat shapes, captions, edits, an exact judge, and a tiny Z-Image pipeline that knows them."""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
"""The diffusers folder of the embedded model; its LoRA teachers lie in `MODEL / "loras"`."""
