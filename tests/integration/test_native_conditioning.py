"""Buckets over CONDITIONING in a real server: the run that text would have given, edits, targets, refusals."""

import json

import pytest
from safetensors.torch import load_file

from ..comfyui import comfyui_python, comfyui_root
from .graphs import node_of
from .native_graphs import native, picture
from .server import Server, messages, succeeded

TEXTS = ("a red circle", "two blue squares", "a green triangle")


def encoded(graph, bucket, texts=TEXTS, **more):
    """A bucket node's prompts by CLIP Text Encode and Create List instead, in place."""
    for number, text in enumerate(texts):
        graph[f"{bucket} text {number}"] = {
            "class_type": "CLIPTextEncode",
            "inputs": {"clip": ["loader", 1], "text": text},
        }
    graph[f"{bucket} list"] = {
        "class_type": "CreateList",
        "inputs": {f"inputs.input{number}": [f"{bucket} text {number}", 0] for number in range(len(texts))},
    }
    graph[bucket] = {
        "class_type": "DanceOPD_ConditioningBucket",
        "inputs": {"conditioning": [f"{bucket} list", 0], "label": "given", **more},
    }
    return graph


def one_route(run, **train):
    """The quick start's guided base alone, over lines of text."""
    graph = native(run, **train)
    routes = graph[node_of(graph, "Routes")]["inputs"]
    for name in [name for name in routes if name.endswith("2")]:
        del routes[name]
    routes["routes"] = "1"
    graph["5"]["inputs"] = {"content": "lines of text", "content.prompts": "\n".join(TEXTS)}
    del graph["4"], graph["6"]
    return graph


def white(width):
    return {"class_type": "EmptyImage", "inputs": {"width": width, "height": 64, "batch_size": 1, "color": 0xFFFFFF}}


def edits(graph, bucket, negative=True):
    """One edit of a picture and its negative, as Z-Image's own node encodes them, in place of a bucket."""
    graph["picture"] = white(64)
    for name, text in (("instruction", "remove the circle"), ("none", "")):
        graph[name] = {
            "class_type": "TextEncodeZImageOmni",
            "inputs": {
                "clip": ["loader", 1], "vae": ["loader", 2], "prompt": text, "auto_resize_images": False,
                "image1": ["picture", 0],
            },
        }  # fmt: skip
    inputs = {"conditioning": ["instruction", 0], "label": "own edits", "negative": ["none", 0]}
    if not negative:
        del inputs["negative"]
    graph[bucket] = {"class_type": "DanceOPD_ConditioningBucket", "inputs": inputs}
    return graph


def error(server, graph):
    entry = server.run(graph)
    assert not succeeded(entry)
    told = messages(entry)["execution_error"]
    return told["node_type"], told["exception_message"]


@pytest.fixture(scope="module")
def trained(servers):
    graph = encoded(one_route("conditioned"), "5")
    return graph, servers[0].run(graph)


def test_the_run_is_that_of_the_same_prompts_as_text(trained, server, base):
    """Bit for bit, with a guided teacher whose negative prompt is encoded by CLIP."""
    _, entry = trained
    assert succeeded(entry), messages(entry).get("execution_error")
    other = server.run(one_route("by text"))
    assert succeeded(other), messages(other).get("execution_error")
    mine, theirs = (load_file(base / f"output/loras/{name}.safetensors") for name in ("conditioned", "by text"))
    assert mine.keys() == theirs.keys()
    assert all((mine[key] == theirs[key]).all() for key in mine)
    recipe = (base / "output/danceopd/conditioned/recipe.yaml").read_text()
    assert "encoded:" in recipe
    status = json.loads((base / "output/danceopd/conditioned/status.json").read_text())
    assert [shown["prompt"] for shown in status["pictures"]] == ["given 1"]


def test_it_is_found_finished_after_a_restart_and_another_prompt_is_another_run(trained, servers, base):
    graph, _ = trained
    servers[0].stop()
    servers[0] = server = Server(comfyui_root(), comfyui_python(), base)
    assert succeeded(server.run(graph))
    assert "finished already" in server.get(f"/danceopd/nodes/{node_of(graph, 'Train')}")["message"]
    other = encoded(one_route("conditioned"), "5", (*TEXTS[:2], "a blue triangle"))
    assert succeeded(server.run(other))
    assert (base / "output/danceopd/conditioned.1").is_dir()


def test_edits_train_and_are_compared_with_guided_teachers(server, base):
    graph = edits(native("own edits"), "6")
    graph["guided"] = {"class_type": "DanceOPD_Guided", "inputs": {"field": ["4", 0], "scale": 2.0, "negative": "x"}}
    routes = node_of(graph, "Routes")
    graph[routes]["inputs"] |= {"routes.field2": ["guided", 0], "router": "all"}
    graph["compare"] = {
        "class_type": "DanceOPD_Compare",
        "inputs": {
            "routes": [routes, 0], "lora": [node_of(graph, "Train"), 0], "lora_name": "none", "strength": 1.0,
            "prompts": "", "rows": 1, "steps": 2, "seed": 0, "width": 0, "height": 0,
        },
    }  # fmt: skip
    graph["save"] = {"class_type": "SaveImage", "inputs": {"images": ["compare", 0], "filename_prefix": "compared"}}
    entry = server.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")
    assert picture(base, entry, "save").std() > 5
    history = server.get("/danceopd/runs/own%20edits/history")
    assert any("own edits" in route for route in history["losses"])


def test_targets_train_off_policy(server):
    graph = encoded(one_route("targets", method="offpolicy"), "5", target_images=["picture", 0])
    graph["picture"] = white(80)
    entry = server.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")


def test_what_cannot_be_a_bucket_is_said_on_the_node(server):
    graph = encoded(one_route("refused"), "5")
    graph["combined"] = {
        "class_type": "ConditioningCombine",
        "inputs": {"conditioning_1": ["5 text 0", 0], "conditioning_2": ["5 text 1", 0]},
    }
    graph["5 list"]["inputs"]["inputs.input1"] = ["combined", 0]
    node, told = error(server, graph)
    assert node == "DanceOPD_ConditioningBucket"
    assert "conditioning: number 2 of 3" in told
    assert "2 entries" in told

    graph = encoded(one_route("refused"), "5", negative=["two", 0])
    graph["two"] = {
        "class_type": "CreateList",
        "inputs": {"inputs.input0": ["5 text 0", 0], "inputs.input1": ["5 text 1", 0]},
    }
    node, told = error(server, graph)
    assert (node, "negative: 2 are given for 3" in told) == ("DanceOPD_ConditioningBucket", True)

    graph = encoded(one_route("refused"), "5")
    graph["area"] = {
        "class_type": "ConditioningSetArea",
        "inputs": {"conditioning": ["5 text 0", 0], "width": 64, "height": 64, "x": 0, "y": 0, "strength": 1.0},
    }
    graph["5 list"]["inputs"]["inputs.input0"] = ["area", 0]
    assert "an area" in error(server, graph)[1]

    folder = encoded(one_route("refused"), "5")
    folder["1"] = {
        "class_type": "DanceOPD_LoadModel",
        "inputs": {"model": "shapes", "dtype": "auto", "transformer": "none", "quantise": "none"},
    }
    node, told = error(server, folder)
    assert (node, "bucket1" in told, "Prompt Bucket" in told) == ("DanceOPD_Routes", True, True)

    unguided = edits(native("refused"), "6", negative=False)
    unguided["guided"] = {"class_type": "DanceOPD_Guided", "inputs": {"field": ["4", 0], "scale": 2.0, "negative": ""}}
    unguided[node_of(unguided, "Routes")]["inputs"]["routes.field2"] = ["guided", 0]
    assert "input negative" in error(server, unguided)[1]

    evaluate = encoded(one_route("refused"), "5")
    evaluate = {key: node for key, node in evaluate.items() if key in ("1", "loader") or key.startswith("5")}
    evaluate["evaluate"] = {
        "class_type": "DanceOPD_Evaluate",
        "inputs": {
            "model": ["1", 0], "layout": "geneval", "name": "x", "prompts": "", "bucket": ["5", 0],
            "lora_name": "none", "strength": 1.0, "samples": 1, "limit": 1, "guidance": 1.0, "negative": "",
            "steps": 1, "seed": 0, "width": 0, "height": 0,
        },
    }  # fmt: skip
    assert "bucket: it holds conditioning" in error(server, evaluate)[1]
