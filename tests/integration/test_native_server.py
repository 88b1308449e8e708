"""Models from ComfyUI's loaders in a real server: trained, found finished, refused in the user's words, and sampled."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from ..comfyui import comfyui_python, comfyui_root
from .graphs import node_of, short
from .server import Server, messages, succeeded

LOADERS = {
    "1": {
        "class_type": "DanceOPD_NativeModel",
        "inputs": {
            "model": ["loader", 0], "clip": ["loader", 1], "vae": ["loader", 2], "scheduler": "simple", "edits": "auto",
        },
    },
    "loader": {"class_type": "DanceOPD_LoadShapes", "inputs": {}},
}  # fmt: skip


def native(run, **train):
    """The quick start over Load Shapes, with a stock sampler beside Sample Student."""
    graph = {key: node for key, node in short("quickstart", run, **train).items() if key != "1"} | LOADERS
    drop = ("DanceOPD_Sample", "DanceOPD_Compare", "SaveImage", "PreviewImage")
    graph = {key: node for key, node in graph.items() if node["class_type"] not in drop}
    return json.loads(json.dumps(graph))


def with_samplers(graph, seed=5, steps=4):
    """Two pictures of one prompt and noise: by Sample Student, and by stock nodes with the LoRA on the MODEL."""
    train = node_of(graph, "Train")
    text = "a red circle"
    graph |= {
        "ours": {
            "class_type": "DanceOPD_Sample",
            "inputs": {
                "model": ["1", 0], "task": "auto", "prompt": text, "lora": [train, 0], "lora_name": "none",
                "strength": 1.0, "guidance": 1.0, "negative": "", "steps": steps, "seed": seed, "width": 64,
                "height": 64,
            },
        },
        "lora": {
            "class_type": "LoraModelLoader",
            "inputs": {"model": ["loader", 0], "lora": [train, 0], "strength_model": 1.0, "bypass": False},
        },
        "text": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["loader", 1], "text": text}},
        "empty": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "sampler": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["lora", 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["empty", 0],
                "seed": seed, "steps": steps, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple",
                "denoise": 1.0,
            },
        },
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sampler", 0], "vae": ["loader", 2]}},
        "save ours": {"class_type": "SaveImage", "inputs": {"images": ["ours", 0], "filename_prefix": "ours"}},
        "save theirs": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "theirs"}},
    }  # fmt: skip
    return graph


def picture(base, entry, node):
    (found,) = entry["outputs"][node]["images"]
    return np.asarray(Image.open(base / "output" / found["subfolder"] / found["filename"])).astype(int)


@pytest.fixture(scope="module")
def trained(servers):
    graph = with_samplers(native("native"))
    return graph, servers[0].run(graph)


def test_a_model_of_comfyui_is_trained_and_the_stock_sampler_draws_what_the_pack_draws(trained, base):
    _, entry = trained
    assert succeeded(entry), messages(entry).get("execution_error")
    lora = load_file(base / "output/loras/native.safetensors")
    assert all(key.startswith("diffusion_model.") for key in lora)
    assert any(tensor.any() for key, tensor in lora.items() if key.endswith("lora_B.weight"))
    assert "lora key not loaded" not in (base / "server.log").read_text(errors="replace")
    ours, theirs = picture(base, entry, "save ours"), picture(base, entry, "save theirs")
    assert ours.std() > 5
    assert abs(ours - theirs).max() <= 1


def test_the_same_workflow_is_found_finished_after_a_restart_and_another_model_is_another_run(trained, servers, base):
    graph, _ = trained
    servers[0].stop()
    servers[0] = server = Server(comfyui_root(), comfyui_python(), base)
    node = node_of(graph, "Train")
    again = json.loads(json.dumps(graph))
    again["another"] = again.pop("loader")  # the same nodes under another name
    text = json.dumps(again).replace('["loader"', '["another"')
    entry = server.run(json.loads(text))
    assert succeeded(entry), messages(entry).get("execution_error")
    assert "finished already" in server.get(f"/danceopd/nodes/{node}")["message"]

    shifted = native("native")
    shifted["shift"] = {"class_type": "ModelSamplingAuraFlow", "inputs": {"model": ["loader", 0], "shift": 5.0}}
    shifted["1"]["inputs"]["model"] = ["shift", 0]
    assert succeeded(server.run(shifted))
    assert (base / "output/danceopd/native.1").is_dir()


def test_a_stopped_run_goes_on(server):
    graph = native("native resumed", steps=2)
    assert succeeded(server.run(graph))
    longer = native("native resumed", steps=4)
    entry = server.run(longer)
    assert succeeded(entry), messages(entry).get("execution_error")
    node = node_of(longer, "Train")
    assert server.get("/danceopd/runs/native resumed/history".replace(" ", "%20"))["updates"] == [1, 2, 3, 4]
    assert server.get(f"/danceopd/nodes/{node}")["update"] == 4


def test_a_model_as_it_stands_is_a_teacher(trained, server, base):
    """The base with a stock LoRA on it, as the field of a route."""
    graph = native("native field")
    teacher = next(key for key, node in graph.items() if node["inputs"].get("lora") == "shapes:edit")
    graph["patched"] = {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {"model": ["loader", 0], "lora_name": "native.safetensors", "strength_model": 1.0},
    }
    graph[teacher] = {
        "class_type": "DanceOPD_NativeField",
        "inputs": {"flow_model": ["1", 0], "model": ["patched", 0], "label": "patched"},
    }
    entry = server.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")
    recipe = (base / "output/danceopd/native field/recipe.yaml").read_text()
    assert "comfyui:Shapes:" in recipe


def test_what_does_not_fit_is_said_on_the_node(server):
    def error(graph):
        entry = server.run(graph)
        assert not succeeded(entry)
        return str(messages(entry)["execution_error"]["exception_message"])

    graph = native("refused")
    graph["no flow"] = {
        "class_type": "ModelSamplingDiscrete",
        "inputs": {"model": ["loader", 0], "sampling": "eps", "zsnr": False},
    }
    graph["1"]["inputs"]["model"] = ["no flow", 0]
    assert "no flow-matching model" in error(graph)

    graph = native("refused", width=60)
    assert "width" in error(graph)

    graph = native("refused")
    graph["folder"] = {
        "class_type": "DanceOPD_LoadModel",
        "inputs": {"model": "shapes", "dtype": "auto", "transformer": "none", "quantise": "none"},
    }
    teacher = node_of(graph, "Teacher")
    graph[teacher] = {
        "class_type": "DanceOPD_NativeField",
        "inputs": {"flow_model": ["folder", 0], "model": ["loader", 0], "label": "x"},
    }
    assert "diffusers folder" in error(graph)
    assert succeeded(server.run(native("after the errors")))
