"""The velocities of diffusers' networks, each asked as its pipeline asks it: by our own backbone where there is one."""

import torch
from pack.danceopd_core.models.flux import Flux
from pack.danceopd_core.models.network_inputs import pack_latents, unpack_latents
from pack.danceopd_core.models.qwen import EDITING, QwenImage
from pack.danceopd_core.models.sd3 import StableDiffusion3
from pack.danceopd_core.models.zimage import ZImage

NO_PARTS = {"vae": None, "scheduler": None, "dtype": torch.float32}


def stacked(name, cond):
    return torch.stack([sample.values[name] for sample in cond.samples])


def zimage_backbone(network):
    return ZImage(network, **NO_PARTS, text_encoder=None, tokenizer=None).velocity


def sd3_backbone(network):
    return StableDiffusion3(network, **NO_PARTS, clips=(), t5=None).velocity


def flux_backbone(network, guidance=3.5):
    return Flux(network, **NO_PARTS, edits=True, text_encoder=None, tokenizer=None, text_encoder_2=None,
                tokenizer_2=None, guidance=guidance).velocity  # fmt: skip


def qwen_backbone(network):
    editing = EDITING["QwenImageEditPlusPipeline"]
    made = QwenImage(network, **NO_PARTS, editing=editing, text_encoder=None, tokenizer=None, image_processor=None)

    def velocity(x, sigma, cond):
        return made.velocity(x[:, :, 0], sigma, cond).unsqueeze(2)

    return velocity


def positions(first, latents, step=1):
    """(tokens, 4): frame, row, column, 0."""
    counts = (1, latents.shape[-2] // step, latents.shape[-1] // step, 1)
    return torch.cartesian_prod(*map(torch.arange, counts)) + torch.tensor([first, 0.0, 0.0, 0.0])


def flux2_backbone(network):
    """As Flux2KleinPipeline: every latent is a token, references are at the frames 10, 20, ..."""

    def velocity(x, sigma, cond):
        text = stacked("text", cond)
        parts = [x, *map(torch.stack, zip(*(sample.values.get("sources", ()) for sample in cond.samples), strict=True))]
        output = network(
            hidden_states=torch.cat([part.flatten(2).mT for part in parts], 1),
            timestep=sigma,
            guidance=None,
            encoder_hidden_states=text,
            txt_ids=torch.cartesian_prod(*map(torch.arange, (1, 1, 1, text.shape[1]))).float(),
            img_ids=torch.cat([positions(10 * number, part) for number, part in enumerate(parts)]),
            return_dict=False,
        )[0]
        return output[:, : x[0, 0].numel()].mT.unflatten(2, x.shape[2:])

    return velocity


def chroma_backbone(network):
    def velocity(x, sigma, cond):
        text = stacked("text", cond)
        output = network(
            hidden_states=pack_latents(x),
            timestep=sigma,
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3),
            img_ids=positions(0, x, 2)[:, :3],
            attention_mask=torch.ones(len(x), text.shape[1] + x[0, 0].numel() // 4, dtype=torch.bool),
            return_dict=False,
        )[0]
        return unpack_latents(output, *x.shape[2:])

    return velocity


def lumina_backbone(network):
    def velocity(x, sigma, cond):
        text = stacked("text", cond)
        mask = torch.ones(text.shape[:2], dtype=torch.long)
        return -network(x, 1 - sigma, text, mask, return_dict=False)[0]

    return velocity


def krea_backbone(network):
    """As Krea2Pipeline, which takes no source pictures; the text's layers are an axis of their own."""

    def velocity(x, sigma, cond):
        text = stacked("text", cond).unflatten(2, (2, 48))
        frame = x[:, :, 0]
        output = network(
            hidden_states=pack_latents(frame),
            encoder_hidden_states=text,
            timestep=sigma,
            position_ids=torch.cat([torch.zeros(text.shape[1], 3), positions(0, frame, 2)[:, :3]]),
            return_dict=False,
        )[0]
        return unpack_latents(output, *frame.shape[2:]).unsqueeze(2)

    return velocity


def aura_backbone(network):
    def velocity(x, sigma, cond):
        return network(x, stacked("text", cond), sigma, return_dict=False)[0]

    return velocity


def ernie_backbone(network):
    def velocity(x, sigma, cond):
        text = stacked("text", cond)
        return network(x, 1000 * sigma, text, torch.full((len(x),), text.shape[1]), return_dict=False)[0]

    return velocity
