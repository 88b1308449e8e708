"""Bad input over models of ComfyUI in a real server: one error on the right node, and the next prompt runs."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ..comfyui import comfyui_python, comfyui_root
from .graphs import node_of
from .native_graphs import native
from .server import Server, messages, succeeded
from .test_native_conditioning import encoded, one_route, white

FAULTY = Path(__file__).with_name("faulty_nodes.py")


@pytest.fixture(scope="module")
def faulty(servers, base):
    """A server that has the loaders that go wrong, too."""
    place = base / "custom_nodes" / "faulty_nodes.py"
    shutil.copy(FAULTY, place)
    servers[0].stop()
    servers[0] = Server(comfyui_root(), comfyui_python(), base)
    yield servers[0]
    place.unlink()


@pytest.fixture
def refused(faulty):
    """The node and the text of the one error of a prompt; after it, the server trains as before."""

    def run(graph):
        entry = faulty.run(graph)
        assert not succeeded(entry)
        told = messages(entry)["execution_error"]
        assert alive(faulty) == 0, "the error keeps the model in memory"
        return told["node_type"], told["exception_message"]

    yield run
    entry = faulty.run(one_route("after a fault", steps=1))
    assert succeeded(entry), messages(entry).get("execution_error")
    assert alive(faulty) == 0, "the training keeps the model in memory"


def alive(server):
    """Models that the pack opened and that are still in memory."""
    entry = server.run({"alive": {"class_type": "TestAlive", "inputs": {}}})
    opened, _ = entry["outputs"]["alive"]["alive"]
    return opened


def test_what_is_alive_is_found(faulty):
    """The node's output stays in ComfyUI's cache, as long as the graph is the same."""
    graph = native("counted", steps=1)
    graph["alive"] = {"class_type": "TestAlive", "inputs": {"after": [node_of(graph, "Train"), 2]}}
    entry = faulty.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")
    assert entry["outputs"]["alive"]["alive"] == [0, 1]


def by(graph, kind, socket, **inputs):
    """A node between the loader and Flow Model from ComfyUI."""
    graph["between"] = {"class_type": kind, "inputs": inputs}
    graph["1"]["inputs"][socket] = ["between", 0]
    return graph


def test_a_model_whose_loader_cannot_load_it_again_is_copied(faulty):
    graph = by(native("copied", steps=1), "TestFaultyModel", "model", fault="no factory", model=["loader", 0])
    entry = faulty.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")


def test_what_can_be_seen_before_loading_is_said_at_the_flow_model(refused):
    loaded = {"model": ["loader", 0]}
    cases = {
        "vae: the VAE makes latents of 4 channels": by(native("faults"), "TestOtherVae", "vae", vae=["loader", 2]),
        "model: the MODEL (Shapes) cannot be distilled: it is no flow-matching model": by(
            native("faults"), "ModelSamplingDiscrete", "model", sampling="eps", zsnr=False, **loaded
        ),
        "model: the MODEL carries patches of the sampler (sampler_cfg_function)": by(
            native("faults"), "RescaleCFG", "model", multiplier=0.7, **loaded
        ),
    }
    for told, graph in cases.items():
        node, message = refused(graph)
        assert node == "DanceOPD_NativeModel"
        assert message.strip().startswith(told)


def test_a_text_encoder_of_another_family_is_named_before_training(refused, base):
    node, message = refused(by(native("other clip"), "TestOtherClip", "clip"))
    assert node == "DanceOPD_Train"
    assert message.strip().startswith("Flow Model from ComfyUI, clip: the text encoder does not belong to the MODEL")
    assert "takes vectors of 128 numbers and gets 64" in message
    assert not (base / "output/danceopd/other clip").exists()


def test_conditioning_of_another_text_encoder_is_named_before_training(refused, base):
    graph = encoded(one_route("other conditioning"), "5")
    graph["other"] = {"class_type": "TestOtherClip", "inputs": {}}
    graph["5 text 1"]["inputs"]["clip"] = ["other", 0]
    node, message = refused(graph)
    assert node == "DanceOPD_Train"
    assert "conditioning of Bucket from Conditioning" in message
    assert "takes vectors of 128 numbers and gets 64" in message
    assert not (base / "output/danceopd/other conditioning").exists()


def test_a_lora_that_leaves_keys_over_is_named_by_its_widget(refused, faulty, base):
    state = load_file(base / "custom_nodes/danceopd/danceopd_core/shapes/model/loras/edit.safetensors")
    state["diffusion_model.elsewhere.lora_A.weight"] = torch.zeros(1, 1)
    save_file(state, base / "models/loras/more.safetensors")
    graph = native("a key over")
    teacher = next(key for key, node in graph.items() if node["inputs"].get("lora") == "shapes:edit")
    graph[teacher]["inputs"]["lora"] = "more.safetensors"
    node, message = refused(graph)
    assert node == "DanceOPD_Train"
    assert message.strip().startswith("Teacher Field, lora ('more'): ")
    assert "elsewhere" in message

    graph = native("a key over")
    graph[node_of(graph, "Student")]["inputs"]["start"] = "more.safetensors"
    assert refused(graph)[1].strip().startswith("Student LoRA, start: ")


def test_memory_that_runs_out_is_said_with_the_way_out(refused, faulty, base):
    node, message = refused(by(native("no memory"), "TestFaultyModel", "model", fault="no memory", model=["loader", 0]))
    assert node == "DanceOPD_Train"
    assert message.startswith("out of memory: set gradient_checkpointing, or lower batch")
    assert "9.00 GiB" in message


def test_edits_of_unequal_sizes_share_a_batch(faulty):
    graph = encoded(one_route("unequal", batch=3), "5")
    for number, width in enumerate((64, 128)):
        graph[f"picture {number}"] = white(width)
        graph[f"5 text {number}"] = {
            "class_type": "TextEncodeZImageOmni",
            "inputs": {
                "clip": ["loader", 1], "vae": ["loader", 2], "prompt": "remove the circle", "auto_resize_images": False,
                "image1": [f"picture {number}", 0],
            },
        }  # fmt: skip
    del graph[node_of(graph, "Guided")]
    graph[node_of(graph, "Routes")]["inputs"]["routes.field1"] = [node_of(graph, "Teacher"), 0]
    entry = faulty.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")
