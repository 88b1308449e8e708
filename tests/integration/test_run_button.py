"""What happens between Run and the first update: faults on the node that has them, lists, Cancel."""

import csv
import json
import time
import urllib.error

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from .graphs import node_of, only_training, short
from .server import messages, succeeded


def status(server, node):
    return server.get(f"/danceopd/nodes/{node}") or {}


def change(kind, **inputs):
    def changed(graph):
        graph[node_of(graph, kind)]["inputs"] |= inputs

    return changed


def table(name, task=""):
    return change("Bucket", **{"content": "CSV file", "content.file": name, "content.task": task})


def lines(graph):
    bucket = graph[node_of(graph, "Bucket")]
    bucket["inputs"] = {"content": "lines of text", "content.prompts": " \n# nothing"}


def sampled(**inputs):
    """With Sample Student behind the training."""

    def changed(graph):
        train, model = node_of(graph, "Train"), node_of(graph, "LoadModel")
        graph["90"] = {
            "class_type": "DanceOPD_Sample",
            "inputs": {
                "model": [model, 0], "task": "auto", "prompt": "a star", "lora": [train, 0], "lora_name": "none",
                "strength": 1.0, "guidance": 1.0, "negative": "", "steps": 2, "seed": 0, "width": 0, "height": 0,
                **inputs,
            },
        }  # fmt: skip
        graph["91"] = {"class_type": "PreviewImage", "inputs": {"images": ["90", 0]}}

    return changed


def compared(**inputs):
    def changed(graph):
        full = short("cfg_absorption", "x")
        graph["92"] = full[node_of(full, "Compare")]
        graph["92"]["inputs"] |= {**inputs, "lora": [node_of(graph, "Train"), 0]}
        graph["93"] = {"class_type": "PreviewImage", "inputs": {"images": ["92", 0]}}
        graph["60"] = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}}

    return changed


@pytest.fixture(scope="module")
def tables(base):
    folder = base / "input"
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(folder / "white.png")
    (folder / "broken.png").write_bytes(b"no picture")
    rows = {
        "good": "prompt,task,source_image\nmake it red,edit,white.png\n",
        "no_prompt": "text,task\na star,t2i\n",
        "missing": "prompt,source_image\nmake it red,nowhere.png\n",
        "broken": "prompt,source_image\nmake it red,broken.png\n",
        "sourceless": "prompt,task,source_image\nmake it red,edit,\nmake it blue,edit,\n",
    }
    for name, text in rows.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("fault", "kind", "told"),
    [
        (lines, "Bucket", "the bucket is empty"),
        (table("no_prompt.csv"), "Bucket", "has no column prompt"),
        (table("good.csv", "edti"), "Bucket", "edti"),
        (table("missing.csv"), "Bucket", "row 2"),
        (table("broken.csv"), "Bucket", "not a readable picture"),
        (table("sourceless.csv", "edit"), "Bucket", "learned as text-to-image"),
        (table("absent.csv"), "Bucket", "'absent.csv' is not in the list"),
        (change("Routes", **{"routes.weight1": 0.0}), "Routes", "weight"),
        (change("Student", start="shapes:edit", over="shapes:edit"), "Student", "only a fresh student"),
        (change("Train", name="a/b"), "Train", "cannot name a LoRA"),
        (change("Train", k=99), "Train", "k: "),
        (change("Train", sigma_low=0.5, sigma_high=0.4), "Train", "sigma_low and sigma_high: "),
        (change("Train", schedule="constant", warmup=3), "Train", "warmup: "),
        (change("Train", more_settings="out=/tmp/x"), "Train", "more_settings"),
        (change("Train", quality="fast", rollout_steps=16), "Train", "rollout_steps: 16 is not the 8 of quality"),
        (change("Train", steps=0), "Train", "steps: 0 is below 1"),
        (sampled(task="edit"), "Sample", "no image is connected"),
        (sampled(lora_name="shapes:edit"), "Sample", "a LoRA is connected already"),
        (compared(lora_name="shapes:edit"), "Compare", "a LoRA is connected already"),
        (compared(prompts="", sources=["60", 0]), "Compare", "sources: "),
    ],
)
def test_a_fault_of_a_widget_is_told_on_its_node_when_run_is_pressed(server, tables, fault, kind, told):
    graph = only_training("cfg_absorption", "at run")
    fault(graph)
    try:
        answer = server.post("/prompt", {"prompt": graph})
    except urllib.error.HTTPError as error:
        answer = json.loads(error.read())
    else:  # ComfyUI leaves out what comes behind the fault, and runs the rest
        server.post("/interrupt", {})
        server.wait(answer["prompt_id"])
    errors = answer["node_errors"]
    assert {graph[key]["class_type"] for key in errors} == {f"DanceOPD_{kind}"}
    assert told in str(errors)


def test_faults_that_need_the_model_are_told_before_anything_is_loaded(server, base):
    lora = {
        "layers.9.attention.to_q.lora_A.weight": torch.ones(2, 7),
        "layers.9.attention.to_q.lora_B.weight": torch.ones(7, 2),
    }
    save_file(lora, base / "models/loras/other model.safetensors")
    cases = [
        (change("Train", width=1024, height=1024), "Train", "use 512"),
        (compared(width=8192), "Train", "Compare (node 92), width: 8192 is more"),
        (sampled(height=36), "Train", "Sample (node 90), height: 36 is not a multiple"),
        (change("Teacher", lora="other model.safetensors"), "Teacher", "lora: "),
        (change("Student", start="other model.safetensors"), "Student", "start: "),
        (change("Student", start="fresh", over="other model.safetensors"), "Student", "over: "),
    ]
    for fault, kind, told in cases:
        graph = only_training("cfg_absorption", "big")
        fault(graph)
        error = messages(server.run(graph))["execution_error"]
        assert error["node_type"] == f"DanceOPD_{kind}"
        assert told in error["exception_message"]
        assert kind != "Train" or status(server, error["node_id"])["message"] == error["exception_message"].strip()
    assert not (base / "output/danceopd/big").exists()


def test_two_trainers_of_one_name_are_refused_and_the_panel_says_so(server, base):
    graph = only_training("cfg_absorption", "one name")
    node = node_of(graph, "Train")
    graph["100"] = {**graph[node], "inputs": {**graph[node]["inputs"], "seed": 9, "name": "One Name.safetensors"}}
    entry = server.run(graph)
    told = messages(entry)["execution_error"]
    assert "other settings" in told["exception_message"]
    assert status(server, told["node_id"])["message"] == told["exception_message"].strip()
    assert not (base / "output/danceopd/one name").exists()


def test_the_name_of_the_file_is_the_name_and_sigma_wins_over_bias(server, base):
    graph = only_training("cfg_absorption", "ended.safetensors", bias="mid", sigma_low=0.3, sigma_high=0.7, shift=1.0)
    assert succeeded(server.run(graph))
    assert (base / "output/loras/ended.safetensors").is_file()
    asked = status(server, node_of(graph, "Train"))["asked"]
    assert [(round(sigma, 2), round(share, 1)) for sigma, share in asked] == [(0.67, 0.5), (0.33, 0.5)]


def test_a_learning_rate_that_destroys_the_student_does_not_end_green(server):
    graph = only_training("cfg_absorption", "wild", learning_rate=1.0, steps=8)
    assert succeeded(server.run(graph))
    assert "lower the learning rate" in status(server, node_of(graph, "Train"))["warning"]
    good = only_training("cfg_absorption", "tame")
    assert succeeded(server.run(good))
    assert status(server, node_of(good, "Train"))["warning"] == ""


@pytest.fixture(scope="module")
def folder(base):
    """Pictures of several sizes with captions, as the stock nodes read them."""
    place = base / "input" / "dataset"
    place.mkdir()
    for number in range(3):
        picture = np.full((64 + 16 * number, 80, 3), 60 * number, np.uint8)
        Image.fromarray(picture).save(place / f"{number}.png")
        (place / f"{number}.txt").write_text(f"caption {number},\na star", encoding="utf-8")


def test_lists_of_stock_nodes_train_once(server, base, folder):
    graph = only_training("cfg_absorption", "lists", method="offpolicy", validation_prompts="make it red")
    for key, kind in (("pairs", "LoadImageTextDataSetFromFolder"), ("pictures", "LoadImageDataSetFromFolder")):
        graph[key] = {"class_type": kind, "inputs": {"folder": "dataset"}}
    bucket, train = node_of(graph, "Bucket"), node_of(graph, "Train")
    graph[bucket]["inputs"] = {
        "content": "lines of text", "content.prompts": ["pairs", 1], "source_images": ["pictures", 0],
        "target_images": ["pairs", 0],
    }  # fmt: skip
    graph[train]["inputs"]["validation_prompts"] = ["pairs", 1]
    graph[train]["inputs"]["validation_sources"] = ["pictures", 0]
    entry = server.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")
    assert len(entry["outputs"][train]["lora_name"]) == 1
    assert len(status(server, train)["pictures"]) == 3
    recipe = (base / "output/danceopd/lists/recipe.yaml").read_text(encoding="utf-8")
    (file,) = (line.split("csv:")[1].strip() for line in recipe.splitlines() if "csv:" in line)
    with open(file, encoding="utf-8", newline="") as written:
        rows = list(csv.DictReader(written))
    assert sorted(row["prompt"] for row in rows) == [f"caption {number}, a star" for number in range(3)]
    assert len({row["target_image"] for row in rows}) == 3


def test_a_list_for_one_value_is_refused(server):
    graph = only_training("cfg_absorption", "several")
    graph["pairs"] = {"class_type": "LoadImageTextDataSetFromFolder", "inputs": {"folder": "dataset"}}
    graph[node_of(graph, "Train")]["inputs"]["name"] = ["pairs", 1]
    told = messages(server.run(graph))["execution_error"]
    assert "name: it is given 3 values" in told["exception_message"]


def test_cancel_is_heard_while_a_bucket_is_encoded_and_the_earlier_lora_stays(server, base):
    lora = base / "output/loras/encoded.safetensors"

    def cancelled(seed):
        graph = only_training("quickstart", "encoded", seed=seed, steps=300)
        buckets = [node for node in graph.values() if node["class_type"] == "DanceOPD_Bucket"]
        for node in buckets:
            node["inputs"]["content.count"] = 600
        train = node_of(graph, "Train")
        prompt, seen = server.queue(graph), []

        def encoding():
            work = status(server, train).get("work") or {}
            seen.append(work)
            return work.get("what", "").startswith("encoding the bucket") and 0 < work["done"] < work["total"]

        server.until(encoding)
        asked = time.monotonic()
        server.post("/interrupt", {})
        entry = server.wait(prompt, 30)
        assert time.monotonic() - asked < 5
        assert "execution_interrupted" in messages(entry)
        assert seen[-1]["eta"] is not None
        assert status(server, train)["state"] == "cancelled"
        return status(server, train)["message"]

    assert cancelled(seed=1) == "Nothing was trained"
    assert not lora.exists()
    assert succeeded(server.run(only_training("cfg_absorption", "encoded")))
    before = lora.read_bytes()
    assert "encoded.safetensors in the loras folder is as it was" in cancelled(seed=2)
    assert lora.read_bytes() == before
    assert load_file(lora)
    other = only_training("cfg_absorption", "encoded", seed=3)
    assert succeeded(server.run(other))
    assert status(server, node_of(other, "Train"))["earlier"] == "output/danceopd/encoded.1/student.safetensors"
