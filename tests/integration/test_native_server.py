"""Models from ComfyUI's loaders in a real server: trained, found finished, refused in the user's words, and sampled."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from danceopd_core.runs.stored.queueing import SERVER

from ..comfyui import comfyui_python, comfyui_root
from .graphs import node_of, only_training
from .native_graphs import LOADERS, native, picture, with_samplers
from .server import ROOT, Server, messages, succeeded


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
    ours, theirs, direct = (picture(base, entry, f"save {name}") for name in ("ours", "theirs", "direct"))
    assert ours.std() > 5
    assert abs(ours - theirs).max() <= 1
    assert (direct == theirs).all()


def test_the_model_output_is_the_base_with_the_saved_file_on_it(trained, server, base):
    """Against stock Load LoRA on the loader's MODEL; the base itself draws another picture."""
    graph, _ = trained
    graph = with_samplers(json.loads(json.dumps(graph)), seed=6, file=["file", 0], bare=["loader", 0])
    graph["file"] = {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {"model": ["loader", 0], "lora_name": "native.safetensors", "strength_model": 1.0},
    }
    entry = server.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")
    file, direct, bare = (picture(base, entry, f"save {name}") for name in ("file", "direct", "bare"))
    assert (direct == file).all()
    assert (direct != bare).any()


def test_over_a_diffusers_folder_only_what_uses_the_model_output_is_held_back(server, base):
    graph = with_samplers(only_training("quickstart", "folder student"))
    graph["loader"] = LOADERS["loader"]
    del graph["ours"], graph["save ours"]
    entry, told = server.told(graph)
    assert succeeded(entry), messages(entry).get("execution_error")
    assert "save theirs" in entry["outputs"]
    assert "save direct" not in entry["outputs"]
    (error,) = (data for kind, data in told if kind == "execution_error")
    assert error["node_id"] == "sampler direct"
    assert "diffusers folder" in error["exception_message"]
    assert "Flow Model from ComfyUI" in error["exception_message"]


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


def test_it_trains_with_dynamic_vram_switched_off(servers, base):
    """--lowvram and --novram do not start without CUDA: see the laws of streaming."""
    servers[0].stop()
    servers[0] = Server(comfyui_root(), comfyui_python(), base, "--disable-dynamic-vram")
    entry = servers[0].run(native("not dynamic", steps=2))
    assert succeeded(entry), messages(entry).get("execution_error")


def test_a_run_goes_on_after_a_restart(servers, base):
    graph = native("native resumed", steps=2)
    assert succeeded(servers[0].run(graph))
    servers[0].stop()
    servers[0] = server = Server(comfyui_root(), comfyui_python(), base)
    longer = native("native resumed", steps=4)
    entry = server.run(longer)
    assert succeeded(entry), messages(entry).get("execution_error")
    node = node_of(longer, "Train")
    assert server.get("/danceopd/runs/native resumed/history".replace(" ", "%20"))["updates"] == [1, 2, 3, 4]
    assert server.get(f"/danceopd/nodes/{node}")["update"] == 4


def over_a_file(run):
    """The base with a LoRA file of the loras folder on it, as the student's base."""
    graph = native(run, steps=2)
    graph["file"] = {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {"model": ["loader", 0], "lora_name": "base.safetensors", "strength_model": 0.5},
    }
    graph["1"]["inputs"]["model"] = ["file", 0]
    return graph


def test_a_file_with_another_date_is_another_run(trained, servers, base):
    file = base / "models/loras/base.safetensors"
    shutil.copy(base / "output/loras/native.safetensors", file)
    graph, run = over_a_file("dated"), base / "output/danceopd/dated"
    assert succeeded(servers[0].run(graph))
    lines = (run / "recipe.yaml").read_text().splitlines()
    assert "# - LoraLoaderModelOnly, lora_name: base.safetensors" in lines

    def again():
        servers[0].stop()
        servers[0] = Server(comfyui_root(), comfyui_python(), base)
        assert succeeded(servers[0].run(graph))
        return "finished already" in servers[0].get(f"/danceopd/nodes/{node_of(graph, 'Train')}")["message"]

    assert again()
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    assert not again()
    assert (base / "output/danceopd/dated.1").is_dir()


def test_the_command_line_tells_how_to_queue_a_run_again(trained, server, base):
    """Its command is run as it stands, but for the port."""
    graph, _ = trained
    run = base / "output/danceopd/native"
    told = subprocess.run(
        [sys.executable, "-m", "danceopd_core", "train", str(run / "recipe.yaml")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode
    assert "Traceback" not in told.stderr
    (command,) = (line.strip() for line in told.stderr.splitlines() if line.strip().startswith("curl"))
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    answer = subprocess.run(
        command.replace(SERVER, server.url), shell=True, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert succeeded(server.wait(json.loads(answer.stdout)["prompt_id"]))
    assert "finished already" in server.get(f"/danceopd/nodes/{node_of(graph, 'Train')}")["message"]


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
