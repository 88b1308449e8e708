"""Text that no file can hold and no terminal should see, in every widget of every node: the next prompt runs."""

import json
import urllib.error

import pytest

from .graphs import RUNNABLE, node_of, only_training, short
from .native_graphs import native
from .server import messages, succeeded

HALF = "circle \ud800"
CONTROLS = "circle \x1b]0;taken\x07 \x9b2J"
RAW = (b"\x1b]0;", b"\x9b2J", "\x9b2J".encode())
"""What the second would have done to a terminal that shows the log."""
PROBE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


def evaluation():
    inputs = {
        "model": ["1", 0], "layout": "geneval", "name": "strings", "prompts": "a red circle", "steps": 1,
        "lora_name": "none", "strength": 1.0, "samples": 1, "limit": 1, "guidance": 1.0, "negative": "", "seed": 0,
        "width": 0, "height": 0,
    }  # fmt: skip
    model = {"model": "shapes", "dtype": "auto", "transformer": "none", "quantise": "none"}
    return {
        "1": {"class_type": "DanceOPD_LoadModel", "inputs": model},
        "2": {"class_type": "DanceOPD_Evaluate", "inputs": inputs},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }


def over_models():
    """Labels of Field from MODEL and of Bucket from Conditioning."""
    graph = native("strings", steps=1)
    graph["mine"] = {
        "class_type": "DanceOPD_NativeField",
        "inputs": {"flow_model": ["1", 0], "model": ["loader", 0], "label": "model"},
    }
    graph["text"] = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["loader", 1], "text": "a red circle"}}
    graph["bucket"] = {
        "class_type": "DanceOPD_ConditioningBucket",
        "inputs": {"conditioning": ["text", 0], "label": "conditioning"},
    }
    routes = {"routes": "1", "router": "all"}
    routes |= {"routes.field1": ["mine", 0], "routes.bucket1": ["bucket", 0], "routes.weight1": 1.0}
    graph[node_of(graph, "Routes")]["inputs"] = routes
    return graph


def from_text(content):
    graph = short("cfg_absorption", "strings", steps=1)
    graph[node_of(graph, "Bucket")]["inputs"] = content
    return graph


def embedded_lora():
    """Load LoRA between the embedded model and a sampler."""
    graph = native("strings", steps=1)
    graph["patched"] = {
        "class_type": "DanceOPD_LoadLora",
        "inputs": {"model": ["loader", 0], "lora_name": "none", "strength": 1.0},
    }
    graph["1"]["inputs"]["model"] = ["patched", 0]
    graph["loader"]["inputs"]["weights"] = "float32"
    return graph


def report():
    """LoRA Report of what is trained."""
    graph = short("cfg_absorption", "strings", steps=1)
    graph["report"] = {
        "class_type": "DanceOPD_LoraReport",
        "inputs": {
            "lora_name": "none",
            "lora": [node_of(graph, "Train"), 0],
            "flow_model": [node_of(graph, "LoadModel"), 0],
            "prompt": "a photograph",
        },
    }
    return graph


GRAPHS = {
    "report": report(),
    **{name: short(name, "strings", steps=1) for name in RUNNABLE if name in ("cfg_absorption", "sample_student")},
    "evaluation": evaluation(),
    "over models": over_models(),
    "embedded lora": embedded_lora(),
    "lines": from_text({"content": "lines of text", "content.prompts": "a red circle"}),
    "csv": from_text({"content": "CSV file", "content.file": "strings.csv", "content.task": ""}),
}
WIDGETS = {
    (node["class_type"], name): (graph, key)
    for graph, nodes in GRAPHS.items()
    for key, node in nodes.items()
    for name, value in node["inputs"].items()
    if node["class_type"].startswith("DanceOPD_") and isinstance(value, str)
}
"""(node, input) -> a graph with it, and the node's key there."""


def evil(widget, text):
    graph, key = WIDGETS[widget]
    nodes = {other: {**node, "inputs": {**node["inputs"]}} for other, node in GRAPHS[graph].items()}
    nodes[key]["inputs"][widget[1]] = text
    return nodes, key


def answered(server, nodes):
    """What the server says to a prompt, taken or not."""
    try:
        return server.post("/prompt", {"prompt": nodes})
    except urllib.error.HTTPError as refused:
        return json.loads(refused.read())


def sound(server):
    assert succeeded(server.run(PROBE))
    log = server.log_file.read_bytes()
    assert not any(raw in log for raw in RAW)


def test_every_text_of_every_node_is_here(server):
    """Strings as such; the combos of nodes that have no string are refused by ComfyUI's own list."""
    missing = set()
    for name, node in server.get("/object_info").items():
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        if name.startswith("DanceOPD_"):
            missing |= {(name, key) for key, (kind, *_) in inputs.items() if kind == "STRING"}
    assert len(missing) > 10
    assert missing <= WIDGETS.keys()


@pytest.mark.parametrize("widget", sorted(WIDGETS), ids=":".join)
def test_half_a_character_is_an_error_on_its_node(server, base, widget):
    (base / "input" / "strings.csv").write_text("prompt\na red circle\n", encoding="utf-8")
    nodes, key = evil(widget, HALF)
    answer = answered(server, nodes)
    if key not in answer["node_errors"]:  # which hold what is not in a combo's list; other outputs run
        entry = server.wait(answer["prompt_id"])
        assert not succeeded(entry)
        error = messages(entry)["execution_error"]
        assert (error["node_id"], error["exception_type"].rpartition(".")[2]) == (key, "InputError"), error
        assert widget[1].split(".")[0] in error["exception_message"]
    sound(server)


STRINGS = [
    ("DanceOPD_Train", "name"),
    ("DanceOPD_Train", "more_settings"),
    ("DanceOPD_Train", "validation_prompts"),
    ("DanceOPD_Guided", "negative"),
    ("DanceOPD_Student", "targets"),
    ("DanceOPD_Bucket", "content.prompts"),
    ("DanceOPD_Bucket", "content.task"),
    ("DanceOPD_Compare", "prompts"),
    ("DanceOPD_Sample", "prompt"),
    ("DanceOPD_Evaluate", "name"),
    ("DanceOPD_Evaluate", "prompts"),
    ("DanceOPD_NativeField", "label"),
    ("DanceOPD_ConditioningBucket", "label"),
]


@pytest.mark.parametrize("widget", STRINGS, ids=":".join)
def test_control_characters_reach_no_terminal(server, widget):
    nodes, key = evil(widget, CONTROLS)
    answer = answered(server, nodes)
    told = json.dumps(answer["node_errors"].get(key))
    assert "\\u001b" not in told
    assert "\\u009b" not in told
    if key not in answer["node_errors"] and not succeeded(entry := server.wait(answer["prompt_id"])):
        error = messages(entry)["execution_error"]
        assert error["exception_type"].endswith("InputError"), error
    sound(server)


SOCKETS = [
    ("lines", "Train", "routes"), ("lines", "Train", "student"), ("lines", "Routes", "routes.field1"),
    ("lines", "Routes", "routes.bucket1"), ("lines", "Teacher", "model"), ("lines", "Guided", "field"),
    ("lines", "Compare", "routes"), ("lines", "Compare", "lora"), ("lines", "Bucket", "source_images"),
    ("over models", "NativeModel", "vae"), ("over models", "NativeField", "model"),
    ("over models", "ConditioningBucket", "conditioning"), ("embedded lora", "LoadLora", "model"),
]  # fmt: skip


@pytest.mark.parametrize("value", ["text", 3, {"a": [1]}, None], ids=repr)
@pytest.mark.parametrize(("graph", "kind", "name"), SOCKETS, ids=lambda part: part)
def test_a_value_in_place_of_a_connection_is_an_error_on_its_node(server, graph, kind, name, value):
    nodes = {key: {**node, "inputs": {**node["inputs"]}} for key, node in GRAPHS[graph].items()}
    key = node_of(nodes, kind)
    nodes[key]["inputs"][name] = value
    answer = answered(server, nodes)
    if key not in answer["node_errors"]:
        entry = server.wait(answer["prompt_id"])
        if not (value is None and succeeded(entry)):  # an optional one
            error = messages(entry)["execution_error"]
            assert (error["node_id"], error["exception_type"].rpartition(".")[2]) == (key, "InputError"), error
            assert error["exception_message"].startswith(name.rpartition(".")[2])
    assert succeeded(server.run(PROBE))


def test_a_node_with_half_a_character_for_an_id_trains(server):
    graph = only_training("cfg_absorption", "odd_id", steps=1)
    old = node_of(graph, "Train")
    graph["\ud800"] = graph.pop(old)
    server.run(graph)
    sound(server)
