"""A custom node pack of the tests: loaders that go wrong in one way each. The server loads it beside the pack."""

import copy
import gc

import comfy.model_management as management
from comfy import sd1_clip
from comfy.sd import CLIP
from comfy.supported_models_base import ClipTarget


class FaultyModel:
    """A MODEL whose loader cannot load it again, or one that runs out of memory."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "run", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "fault": (["no factory", "no memory"],)}}

    def run(self, model, fault):
        model = model.clone()
        if fault == "no factory":
            model.cached_patcher_init = None
        else:
            model.set_model_unet_function_wrapper(self._out_of_memory)
        return (model,)

    @staticmethod
    def _out_of_memory(apply_model, call):
        raise management.OOM_EXCEPTION("Tried to allocate 9.00 GiB")


class SmallTextModel(sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        config = {
            "num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2,
            "hidden_act": "quick_gelu", "max_position_embeddings": 77, "vocab_size": 49408, "eos_token_id": 49407,
            "projection_dim": 64, "num_positions": 77,
        }  # fmt: skip
        super().__init__(device=device, dtype=dtype, textmodel_json_config=config, model_options=model_options or {})


class SmallClip(sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(device=device, dtype=dtype, clip_model=SmallTextModel, model_options=model_options or {})


class OtherClip:
    """A text encoder of Stable Diffusion 1's family, random and small."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "run", ("CLIP",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def run(self):
        clip = CLIP(ClipTarget(sd1_clip.SD1Tokenizer, SmallClip), parameters=1)
        for weight in clip.cond_stage_model.parameters():
            weight.data.normal_(0, 0.02)
        return (clip,)


class OtherVae:
    """A VAE that says that its latents have four channels."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "run", ("VAE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"vae": ("VAE",)}}

    def run(self, vae):
        vae = copy.copy(vae)
        vae.latent_channels = 4
        return (vae,)


class Alive:
    """How many models that the pack opened, and how many that it was given, are in memory."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "tests", "run", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": {"after": ("STRING", {"forceInput": True})}}

    @classmethod
    def IS_CHANGED(cls, **after):
        return float("nan")

    def run(self, after=None):
        gc.collect()
        names = [type(thing).__name__ for thing in gc.get_objects()]
        return {"ui": {"alive": [names.count("NativeBackbone"), names.count("NativeModel")]}}


NODE_CLASS_MAPPINGS = {
    "TestFaultyModel": FaultyModel,
    "TestOtherClip": OtherClip,
    "TestOtherVae": OtherVae,
    "TestAlive": Alive,
}
