"""Tables that anyone may upload: what they name lies in ComfyUI's own folders, or is refused without a word of it."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from .graphs import node_of, only_training, short
from .server import Refused, messages, succeeded


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    Image.new("RGB", (64, 64), (1, 2, 3)).save(folder / "secret.png")
    return folder


def bucket(file):
    return {"content": "CSV file", "content.file": file, "content.task": ""}


def graphs(base, file):
    """Each node that reads a table."""
    model = {"model": "shapes", "dtype": "auto", "transformer": "none", "quantise": "none"}
    train = only_training("cfg_absorption", "confined", steps=1)
    train[node_of(train, "Bucket")]["inputs"] = bucket(file)
    compare = {
        key: node
        for key, node in short("cfg_absorption", "confined").items()
        if node["class_type"] not in ("DanceOPD_Train", "DanceOPD_Student")
    }
    compare[node_of(compare, "Bucket")]["inputs"] = bucket(file)
    compare[node_of(compare, "Compare")]["inputs"].pop("lora", None)
    router = only_training("local_global_edit", "confined", steps=1)
    router["unlabelled"] = {"class_type": "DanceOPD_Bucket", "inputs": bucket(file)}
    router["router"] = {
        "class_type": "DanceOPD_LearnedRouter",
        "inputs": {"routes": [node_of(router, "Routes"), 0], "unlabelled": ["unlabelled", 0], "holdout": 0.25},
    }
    router[node_of(router, "Train")]["inputs"]["routes"] = ["router", 0]
    evaluate = {
        "1": {"class_type": "DanceOPD_LoadModel", "inputs": model},
        "2": {"class_type": "DanceOPD_Bucket", "inputs": bucket(file)},
        "3": {
            "class_type": "DanceOPD_Evaluate",
            "inputs": {
                "model": ["1", 0], "layout": "gedit", "name": f"confined {Path(file).stem}", "prompts": "", "steps": 1,
                "lora_name": "none", "strength": 1.0, "samples": 1, "limit": 1, "guidance": 1.0, "negative": "",
                "seed": 0, "width": 0, "height": 0, "bucket": ["2", 0],
            },
        },
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }  # fmt: skip
    return {"train": train, "compare": compare, "router": router, "evaluate": evaluate}


def told(server, graph):
    """The one fault, when the prompt is queued or when it runs."""
    try:
        entry = server.run(graph)
    except Refused as refused:
        errors = [error for node in json.loads(str(refused))["node_errors"].values() for error in node["errors"]]
        (found,) = {error["details"].partition(" - ")[2] for error in errors}
        return found
    assert not succeeded(entry)
    error = messages(entry)["execution_error"]
    assert error["exception_type"].endswith("InputError"), error
    return error["exception_message"]


@pytest.mark.parametrize("node", ["train", "compare", "router", "evaluate"])
def test_a_table_names_no_file_outside(server, base, secret, node):
    answers = []
    for name, exists in (("secret.png", True), ("absent.png", False)):
        assert (secret / name).exists() == exists
        up = os.path.relpath(secret, base / "input")
        for way in (secret / name, f"{up}/{name}"):
            (base / "input" / "out.csv").write_text(f"prompt,source_image\nmake it red,{way}\n", encoding="utf-8")
            answers.append(told(server, graphs(base, "out.csv")[node]).replace(str(way), "IT").replace(name, "NAME"))
    assert len(set(answers)) == 1
    assert "'IT' lies outside of the folders that files may be in (input, output, temp)" in answers[0]


def test_links_of_the_input_folder_lead_nowhere_else(server, base, secret):
    link = base / "input" / "linked"
    link.symlink_to(secret)
    (secret / "table.csv").write_text("prompt\na red circle\n", encoding="utf-8")
    (base / "input" / "table.csv").symlink_to(secret / "table.csv")
    (base / "input" / "in.csv").write_text("prompt,source_image\nmake it red,linked/secret.png\n", encoding="utf-8")
    try:
        assert "'linked/secret.png' lies outside" in told(server, graphs(base, "in.csv")["evaluate"])
        assert told(server, graphs(base, "table.csv")["evaluate"]).startswith("file: ")
    finally:
        link.unlink()
        (base / "input" / "table.csv").unlink()


def test_pictures_of_the_own_folders_are_read(server, base):
    sets = base / "input" / "sets"
    sets.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64), "white").save(base / "input" / "example.png")
    shutil.copy(base / "input" / "example.png", sets / "own.png")
    shutil.copy(base / "input" / "example.png", base / "output" / "made.png")
    for number, way in enumerate(("own.png", "../example.png", base / "output" / "made.png", "../../output/made.png")):
        (sets / f"in{number}.csv").write_text(f"prompt,source_image\nmake it red,{way}\n", encoding="utf-8")
        entry = server.run(graphs(base, f"sets/in{number}.csv")["compare"])
        assert succeeded(entry), messages(entry)["execution_error"]["exception_message"]
