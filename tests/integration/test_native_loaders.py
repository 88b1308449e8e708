"""Stock loaders, from their files to a trained student: networks, text encoders and VAEs of ComfyUI's own classes."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from ..comfyui import comfyui_python, comfyui_root
from ..templates import PAGES, read
from .graphs import native_names, short
from .server import Server, copy_pack, messages, succeeded

HERE = Path(__file__).parent
SIZE = {"width": 64, "height": 64}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base folder with the pack, and files for the loaders."""
    root, python = comfyui_root(), comfyui_python()
    folder = tmp_path_factory.mktemp("loaders")
    done = subprocess.run(
        [python, HERE / "stand_ins.py", root, folder / "models"], capture_output=True, text=True, cwd=root,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    copy_pack(folder, None)
    shutil.copytree(HERE / "small_encoders", folder / "custom_nodes" / "small_encoders")
    yield folder
    shutil.rmtree(folder)  # the files are 0.9 GB


@pytest.fixture(scope="module")
def server(base):
    running = Server(comfyui_root(), comfyui_python(), base)
    yield running
    running.stop()


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def unet(network, dtype="default"):
    return node("UNETLoader", unet_name=f"{network}.safetensors", weight_dtype=dtype)


FLUX1 = {
    "clip": node(
        "DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="t5xxl.safetensors", type="flux", device="default"
    ),
    "vae": node("VAELoader", vae_name="ae.safetensors"),
}
LOADERS = {
    "sd35": ({"loader": node("CheckpointLoaderSimple", ckpt_name="sd35.safetensors")}, "EmptySD3LatentImage"),
    "flux1": ({"model": unet("flux1"), **FLUX1}, "EmptySD3LatentImage"),
    "flux1_fp8": ({"model": unet("flux1", "fp8_e4m3fn"), **FLUX1}, "EmptySD3LatentImage"),
    "z_image": (
        {
            "model": unet("z_image"),
            "clip": node("CLIPLoader", clip_name="qwen3_4b.safetensors", type="lumina2", device="default"),
            "vae": node("VAELoader", vae_name="ae.safetensors"),
        },
        "EmptySD3LatentImage",
    ),
    "klein": (
        {
            "model": unet("klein"),
            "clip": node("CLIPLoader", clip_name="qwen3_4b.safetensors", type="flux2", device="default"),
            "vae": node("VAELoader", vae_name="flux2.safetensors"),
        },
        "EmptyFlux2LatentImage",
    ),
}
"""Of each run its loaders, and the node of its latents."""
FEWER = {"z_image": {"steps": 1, "batch": 1, "rollout_steps": 2}}
"""Settings of a run whose network is large."""
KINDS = {"sd35": "SD3", "flux1": "Flux", "flux1_fp8": "Flux", "klein": "Flux2", "z_image": "ZImage"}


def training(name):
    """Guidance absorbed in two updates, and a picture of the student by the pack and by stock nodes."""
    loaders, latents = LOADERS[name]
    whole = "loader" in loaders
    model, clip, vae = (
        (["loader", 0], ["loader", 1], ["loader", 2]) if whole else (["model", 0], ["clip", 0], ["vae", 0])
    )
    sample = {"seed": 5, "steps": 2}
    updates = {"steps": 2, "batch": 2, "rollout_steps": 3, **FEWER.get(name, {})}
    return {
        **loaders,
        "flow": node("DanceOPD_NativeModel", model=model, clip=clip, vae=vae, scheduler="simple", edits="auto"),
        "teacher": node("DanceOPD_Teacher", model=["flow", 0], lora="none", strength=1.0, checkpoint="none"),
        "guided": node("DanceOPD_Guided", field=["teacher", 0], scale=3.0, negative="blurry"),
        "bucket": node("DanceOPD_Bucket", **{"content": "lines of text", "content.prompts": "a cat\na red house\ntwo"}),
        "routes": node(
            "DanceOPD_Routes",
            **{
                "routes": "1", "routes.field1": ["guided", 0], "routes.bucket1": ["bucket", 0], "routes.weight1": 1.0,
                "router": "weighted",
            },
        ),
        "student": node("DanceOPD_Student", start="fresh", rank=4, alpha=0.0, targets="", over="none"),
        "train": node(
            "DanceOPD_Train", routes=["routes", 0], student=["student", 0], name=name, method="danceopd", **updates,
            learning_rate=0.01, accumulate=1, seed=0, validation_prompts="", validate_every=2, save_every=2,
            resume=True, k=1, bias="low", **SIZE, schedule="constant", warmup=0,
            ema=0.0, gradient_checkpointing=True, more_settings="", shift=0.0, sigma_low=0.0, sigma_high=0.0,
        ),
        "ours": node(
            "DanceOPD_Sample", model=["flow", 0], task="auto", prompt="a cat", lora=["train", 0], lora_name="none",
            strength=1.0, guidance=1.0, negative="", **SIZE, **sample,
        ),
        "lora": node("LoraModelLoader", model=model, lora=["train", 0], strength_model=1.0, bypass=False),
        "text": node("CLIPTextEncode", clip=clip, text="a cat"),
        "empty": node(latents, **SIZE, batch_size=1),
        "sampler": node(
            "KSampler", model=["lora", 0], positive=["text", 0], negative=["text", 0], latent_image=["empty", 0],
            cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0, **sample,
        ),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=vae),
        "save ours": node("SaveImage", images=["ours", 0], filename_prefix="ours"),
        "save theirs": node("SaveImage", images=["decode", 0], filename_prefix="theirs"),
    }  # fmt: skip


def picture(base, entry, saved):
    (found,) = entry["outputs"][saved]["images"]
    return np.asarray(Image.open(base / "output" / found["subfolder"] / found["filename"])).astype(float)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name == "z_image" else []) for name in LOADERS]
)
def test_files_of_stock_loaders_are_trained_and_stock_nodes_draw_the_student(name, server, base):
    entry = server.run(training(name))
    assert succeeded(entry), messages(entry).get("execution_error")
    lora = load_file(base / f"output/loras/{name}.safetensors")
    assert all(key.startswith("diffusion_model.") for key in lora)
    assert any(tensor.any() for key, tensor in lora.items() if key.endswith("lora_B.weight"))
    recipe = (base / f"output/danceopd/{name}/recipe.yaml").read_text(encoding="utf-8")
    assert f"comfyui:{KINDS[name]}:" in recipe
    ours, theirs = picture(base, entry, "save ours"), picture(base, entry, "save theirs")
    print(name, abs(ours - theirs).mean(), ours.std())
    assert ours.std() > 5
    assert abs(ours - theirs).mean() < 0.1 * ours.std()
    log = server.log()
    assert "lora key not loaded" not in log
    assert "clip missing" not in log
    assert "unet missing" not in log


def over_files(name):
    """A template with its Load Shapes bypassed for the loaders beside it, over stand-ins of their files."""
    page = read(PAGES[name])
    (asked,) = (node["widgets_values"][0] for node in page["nodes"] if node["type"] == "UNETLoader")
    kind = "z_image" if asked.startswith("z_image") else "klein"
    graph = short(name, **{"batch": 2, "rollout_steps": 2, **FEWER.get(kind, {}), "steps": 2, "warmup": 0})
    shapes = next(key for key, node in graph.items() if node["class_type"] == "DanceOPD_LoadShapes")
    del graph[shapes]
    for made in graph.values():
        for given, value in made["inputs"].items():
            if isinstance(value, list) and value[0] == shapes:
                made["inputs"][given] = [("model", "clip", "vae")[value[1]], 0]
            elif given in ("lora", "lora_name") and str(value).startswith("shapes:"):
                made["inputs"][given] = f"{kind}.safetensors"
            elif given == "start":
                made["inputs"][given] = "fresh"
            elif given == "content.prompts":
                made["inputs"][given] = "a cat\na red house"
        for given, value in {"width": 64, "height": 64, "batch_size": 1}.items():
            if given in made["inputs"]:
                made["inputs"][given] = value
        if made["class_type"] == "KSampler":
            made["inputs"]["steps"] = 1
    return kind, graph | LOADERS[kind][0]


TEMPLATES = {name: over_files(name) for name in native_names()}
"""Over Z-Image at its real width a template takes minutes: its loaders and its training have a test above."""


OFTEN = ("two_loras_into_one_flux2_klein", "quantised_base")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in OFTEN else [pytest.mark.long])
        for name, (kind, _) in TEMPLATES.items()
        if kind == "klein"
    ],
)
def test_a_template_runs_over_files_of_its_family(name, server, base):
    kind, graph = TEMPLATES[name]
    if not (base / f"output/loras/{kind}.safetensors").is_file():
        assert succeeded(server.run(training(kind)))
        server.get("/object_info")  # reads the folder again
    entry = server.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")
    saved = load_file(base / f"output/loras/short_{name}.safetensors")
    assert any(tensor.any() for key, tensor in saved.items() if key.endswith("lora_B.weight"))
    shown = [node for node, made in graph.items() if made["class_type"] in ("SaveImage", "PreviewImage")]
    assert all(entry["outputs"][node]["images"] for node in shown)
