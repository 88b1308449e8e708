"""Run by the tests in a Python that has ComfyUI's requirements: a native model with a LoRA, by ComfyUI's own loaders.

Usage: native_answers.py COMFYUI FOLDER. FOLDER holds model.safetensors, student.safetensors and question.safetensors
(x, sigma, text and perhaps pooled); answers.safetensors is written there. The last line printed is JSON.
"""

import json
import logging
import sys
from pathlib import Path


def main(comfyui: Path, folder: Path) -> None:
    sys.path.insert(0, str(comfyui))
    from comfy.cli_args import args

    args.cpu = True
    import comfy.model_management as management
    import comfy.sd
    import comfy.utils
    import torch
    from safetensors.torch import load_file, save_file

    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    logging.getLogger().addHandler(Listener(logging.WARNING))

    question = load_file(folder / "question.safetensors")
    x, sigma, text = question["x"], question["sigma"], question["text"]
    more = {"y": question["pooled"]} if "pooled" in question else {"num_tokens": text.shape[1]}

    def answer(model) -> torch.Tensor:
        clean = model.model.apply_model(x, sigma, c_crossattn=text, **more)
        return (x - clean) / sigma.view(-1, 1, 1, 1)

    with torch.inference_mode():
        weights = folder / "model.safetensors"
        model = comfy.sd.load_diffusion_model(str(weights), {"dtype": next(iter(load_file(weights).values())).dtype})
        management.load_models_gpu([model])
        answers = {"base": answer(model)}
        # As LoraLoader does it.
        lora, metadata = comfy.utils.load_torch_file(
            str(folder / "student.safetensors"), safe_load=True, return_metadata=True
        )
        with_lora, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0, lora_metadata=metadata)
        # As on a device with no memory to spare: each layer is patched while it works, so that no second copy of
        # the weights is held.
        model.detach()
        with_lora.load(with_lora.load_device, lowvram_model_memory=1)
        answers["layer by layer"] = answer(with_lora)
        if weights.stat().st_size < 2**28:
            with_lora.detach()
            management.load_models_gpu([with_lora])
            answers["in place"] = answer(with_lora)
    save_file({name: v.float().contiguous() for name, v in answers.items()}, folder / "answers.safetensors")
    layers = sum(map(len, with_lora.patches.values()))
    print(json.dumps({"kind": type(model.model.model_config).__name__, "layers": layers, "told": told}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
