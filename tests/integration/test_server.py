"""The pack in a real ComfyUI: loads, trains, cancels, stops, resumes, is queued again, and survives bad input."""

import json
import re
import time
import urllib.error

import pytest
from safetensors.torch import load_file

from ..comfyui import comfyui_python, comfyui_root
from .graphs import RUNNABLE, node_of, only_training, short
from .server import PACK, Refused, Server, messages, succeeded


def outcome(entry, node):
    """What the Train node told in /history."""
    return {key: values[0] for key, values in entry["outputs"][node].items()}


def loras(server):
    return server.get("/object_info/LoraLoaderModelOnly")["LoraLoaderModelOnly"]["input"]["required"]["lora_name"]


def updates(server, node):
    told = server.get(f"/danceopd/nodes/{node}")
    return told["update"] if told and told["state"] in ("training", "stopped", "cancelled", "done") else -1


def test_the_pack_loads_without_a_word_of_complaint(server):
    log = server.log()
    assert f"custom_nodes/{PACK}" in log
    assert "IMPORT FAILED" not in log
    assert "Cannot import" not in log
    assert "Error while calling comfy_entrypoint" not in log
    info = server.get("/object_info")
    assert len([name for name in info if name.startswith("DanceOPD_")]) == 19


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_workflow_runs(server, name):
    entry = server.run(short(name))
    assert succeeded(entry), messages(entry).get("execution_error")
    assert any("images" in output for output in entry["outputs"].values())


def test_a_prompt_from_before_a_widget_came_still_runs(server):
    graph = only_training("cfg_absorption", "older")
    for widget in ("shift", "sigma_low", "sigma_high"):
        del graph[node_of(graph, "Train")]["inputs"][widget]
    assert succeeded(server.run(graph))


def test_a_shifted_path_is_asked_in_the_range(server):
    graph = only_training("cfg_absorption", "shifted", shift=1.0, sigma_low=0.3, sigma_high=0.7)
    node = node_of(graph, "Train")
    assert succeeded(server.run(graph))
    told = server.get(f"/danceopd/nodes/{node}")["asked"]  # of 1, 2/3 and 1/3
    assert [(round(sigma, 2), round(share, 1)) for sigma, share in told] == [(0.67, 0.5), (0.33, 0.5)]


def test_prompts_without_a_route_join_one(server, base):
    graph = only_training("local_global_edit", "joined")
    unlabelled = {"content": "embedded world", "content.kind": "edits", "content.count": 6}
    graph["unlabelled"] = {"class_type": "DanceOPD_Bucket", "inputs": unlabelled}
    inputs = {"routes": [node_of(graph, "Routes"), 0], "unlabelled": ["unlabelled", 0], "holdout": 0.25}
    graph["router"] = {"class_type": "DanceOPD_LearnedRouter", "inputs": inputs}
    graph[node_of(graph, "Train")]["inputs"]["routes"] = ["router", 0]
    entry = server.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")
    told = json.loads((base / "output/danceopd/joined/router.json").read_text())
    assert len(told["prompts"]) == sum(route["joined"] for route in told["routes"].values()) == 6
    assert 0 <= told["accuracy"] <= 1


def test_a_short_list_is_evaluated_where_the_scorers_look(server, base):
    inputs = {
        "model": ["1", 0], "layout": "geneval", "name": "list", "prompts": "a red circle\na blue square", "steps": 2,
        "lora_name": "none", "strength": 1.0, "samples": 2, "limit": 16, "guidance": 1.0, "negative": "", "seed": 0,
        "width": 0, "height": 0,
    }  # fmt: skip
    model = {"model": "shapes", "dtype": "auto", "transformer": "none", "quantise": "none"}
    graph = {
        "1": {"class_type": "DanceOPD_LoadModel", "inputs": model},
        "2": {"class_type": "DanceOPD_Evaluate", "inputs": inputs},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "list"}},
    }
    entry = server.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")
    assert len(entry["outputs"]["3"]["images"]) == 4
    folder = base / "output/danceopd_eval/list"
    for number in (0, 1):
        assert json.loads((folder / f"{number:05d}/metadata.jsonl").read_text())["prompt"]
        names = sorted(path.name for path in (folder / f"{number:05d}/samples").iterdir())
        assert names == ["00000.png", "00001.png"]
    inputs["name"] = "../list"
    with pytest.raises(Refused, match=r"name: '\.\./list'"):
        server.queue(graph)
    assert not (base / "output/list").exists()


def test_history_and_routes_tell_of_the_run(server):
    graph = only_training("quickstart", "told")
    node = node_of(graph, "Train")
    entry = server.run(graph)
    told = outcome(entry, node)
    assert told["lora_name"] == "told.safetensors"
    assert (told["state"], told["steps"]) == ("done", 4)
    assert isinstance(told["loss"], float)
    assert "told" in server.get("/danceopd/runs")
    status = server.get("/danceopd/runs/told")
    assert (status["state"], status["update"], status["steps"]) == ("done", 4, 4)
    assert server.get(f"/danceopd/nodes/{node}") == status
    history = server.get("/danceopd/runs/told/history")
    assert history["updates"] == [1, 2, 3, 4]
    assert [entry["update"] for entry in history["validation"]] == [0, 2, 4]
    for picture in status["pictures"]:
        assert server.raw(picture["url"]).startswith(b"\x89PNG")


def test_the_lora_is_in_the_stock_list_at_once(server):
    assert succeeded(server.run(only_training("cfg_absorption", "listed")))
    assert "listed.safetensors" in str(loras(server))


def test_queueing_again_does_not_train_again_even_after_a_restart(servers, base):
    server = servers[0]
    graph = only_training("cfg_absorption", "again")
    node = node_of(graph, "Train")
    first = outcome(server.run(graph), node)
    written = (base / "output/loras/again.safetensors").stat().st_mtime_ns
    assert succeeded(server.run(short("sample_student")))  # drops what is cached
    assert outcome(server.run(graph), node) == first
    server.stop()
    servers[0] = server = Server(comfyui_root(), comfyui_python(), base)
    assert outcome(server.run(graph), node) == first
    status = server.get(f"/danceopd/nodes/{node}")
    assert "finished already" in status["message"]
    assert (status["finished_before"], status["saved"]["update"], status["best"]["update"] in (2, 4)) == (True, 4, True)
    assert status["start"]
    assert (base / "output/loras/again.safetensors").stat().st_mtime_ns == written
    graph[node]["inputs"]["seed"] = 1
    assert outcome(server.run(graph), node) != first
    assert (base / "output/loras/again.safetensors").stat().st_mtime_ns != written


@pytest.mark.parametrize("at", [0, 3])
def test_cancel_leaves_what_was_trained_and_a_state_to_go_on_from(server, base, at):
    name = f"cancelled{at}"
    graph = only_training("cfg_absorption", name, steps=400, validate_every=0)
    node = node_of(graph, "Train")
    prompt = server.queue(graph)
    server.until(lambda: (server.get(f"/danceopd/nodes/{node}") or {}).get("run") == name)
    server.until(lambda: updates(server, node) >= at)
    server.post("/interrupt", {})
    entry = server.wait(prompt, 30)
    assert "execution_interrupted" in messages(entry)
    told = server.get(f"/danceopd/nodes/{node}")
    assert told["state"] == "cancelled"
    assert told["update"] < 400
    lora = base / "output/loras" / f"{name}.safetensors"
    assert told["update"] >= at
    assert lora.exists() == (told["update"] > 0)
    graph[node]["inputs"]["steps"] = 400
    prompt = server.queue(graph)  # the cosine schedule sees the steps, so they stay
    server.until(lambda: updates(server, node) > told["update"])
    assert server.post("/danceopd/stop", {"node": node})["stopping"]
    assert succeeded(server.wait(prompt, 60))


@pytest.mark.parametrize("at", [0, 3])
def test_stop_and_save_lets_the_graph_go_on(server, base, at):
    name = f"stopped{at}"
    graph = short("cfg_absorption", name, steps=400, validate_every=0)
    node = node_of(graph, "Train")
    prompt = server.queue(graph)
    server.until(lambda: (server.get(f"/danceopd/nodes/{node}") or {}).get("run") == name)
    server.until(lambda: updates(server, node) >= at)
    asked = time.monotonic()
    assert server.post("/danceopd/stop", {"node": node})["stopping"]
    entry = server.wait(prompt, 60)
    assert time.monotonic() - asked < 30
    assert succeeded(entry)
    assert outcome(entry, node)["state"] == "stopped"
    assert any("images" in output for output in entry["outputs"].values())
    assert not server.post("/danceopd/stop", {"node": node})["stopping"]


def test_queueing_a_stopped_graph_again_goes_on(server):
    graph = only_training("cfg_absorption", "goes_on", steps=400, validate_every=0)
    node = node_of(graph, "Train")
    reached = 0
    for _ in range(2):
        prompt = server.queue(graph)
        server.until(lambda: (server.get(f"/danceopd/nodes/{node}") or {}).get("run") == "goes_on")
        server.until(lambda least=reached: updates(server, node) > least + 1)
        assert server.post("/danceopd/stop", {"node": node})["stopping"]
        entry = server.wait(prompt, 60)
        assert succeeded(entry)
        assert outcome(entry, node)["steps"] > reached
        reached = outcome(entry, node)["steps"]


def test_two_equal_trainers_in_one_graph(server):
    graph = only_training("cfg_absorption", "twins")
    node = node_of(graph, "Train")
    graph["100"] = {**graph[node], "inputs": {**graph[node]["inputs"]}}
    graph["101"] = {**graph[node], "inputs": {**graph[node]["inputs"], "name": "other"}}
    entry = server.run(graph)
    assert succeeded(entry)
    assert {outcome(entry, key)["lora_name"] for key in (node, "100")} == {"twins.safetensors"}
    assert outcome(entry, "101")["lora_name"] == "other.safetensors"
    assert server.get("/danceopd/nodes/100")["state"] == "done"


def test_a_trainer_inside_a_subgraph_has_its_whole_id(server):
    text = json.dumps(only_training("cfg_absorption", "inside"))
    graph = {f"40:{key}": node for key, node in json.loads(re.sub(r'\["(\d+)", ', r'["40:\1", ', text)).items()}
    node = node_of(graph, "Train")
    assert succeeded(server.run(graph))
    assert server.get(f"/danceopd/nodes/{node}")["display_node"] == node


def test_the_stock_nodes_take_what_training_gives(server, base):
    graph = only_training("cfg_absorption", "stock")
    node = node_of(graph, "Train")
    graph["50"] = {"class_type": "SaveLoRA", "inputs": {"lora": [node, 0], "prefix": "loras/saved", "steps": [node, 4]}}
    graph["51"] = {"class_type": "LossGraphNode", "inputs": {"loss": [node, 1], "filename_prefix": "loss"}}
    graph["52"] = {"class_type": "PreviewImage", "inputs": {"images": [node, 3]}}
    model = [node_of(graph, "LoadModel"), 0]
    report = {"lora_name": "none", "lora": [node, 0], "flow_model": model}
    graph["53"] = {"class_type": "DanceOPD_LoraReport", "inputs": report}
    graph["54"] = {"class_type": "PreviewImage", "inputs": {"images": ["53", 1]}}
    entry = server.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")
    (saved,) = (base / "output/loras").glob("saved_4_steps_*.safetensors")
    assert load_file(saved).keys() == load_file(base / "output/loras/stock.safetensors").keys()
    (text,) = entry["outputs"]["53"]["text"]
    assert "layers of rank" in text
    assert "changes the model's answer by" in text
    card = (base / "output/loras/stock.md").read_text(encoding="utf-8")
    assert "# stock" in card
    assert "../danceopd/stock/pictures/" in card
    assert server.get("/danceopd/runs/stock")["health"]["state"] == "healthy"


def test_an_edit_bucket_of_pictures_trains(server):
    graph = only_training("cfg_absorption", "pictures", validation_prompts="make it red")
    node = node_of(graph, "Train")
    bucket = node_of(graph, "Bucket")
    graph["60"] = {"class_type": "EmptyImage", "inputs": {"width": 80, "height": 64, "batch_size": 2, "color": 255}}
    graph[bucket]["inputs"] = {"content": "lines of text", "content.prompts": "make it red\nmake it blue"}
    graph[bucket]["inputs"]["source_images"] = ["60", 0]
    graph["61"] = {"class_type": "EmptyImage", "inputs": {"width": 80, "height": 64, "batch_size": 1, "color": 255}}
    graph[node]["inputs"]["validation_sources"] = ["61", 0]
    entry = server.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")


@pytest.mark.parametrize(
    ("router", "train"),
    [
        ("all", {"method": "diffusionopd"}),
        ("round_robin", {"method": "flowopd", "more_settings": "group=2\neta=0.5"}),
        ("all", {"k": 2, "bias": "uniform", "ema": 0.9, "schedule": "constant", "warmup": 0}),
        ("round_robin", {"gradient_checkpointing": True, "accumulate": 2}),
        ("all", {"more_settings": "query.sigma=[0.1, 0.6]\noptimizer.weight_decay=0.01"}),
        ("round_robin", {"shift": 1.0, "sigma_low": 0.3, "sigma_high": 0.7}),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_settings_train(server, router, train):
    graph = only_training("quickstart", "settings", **{"bias": "low"} | train)
    change("Routes", router=router)(graph)
    entry = server.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")
    history = server.get("/danceopd/runs/settings/history")
    losses = history["losses"].values()
    assert len(losses) == 2
    assert router == "round_robin" or all(None not in values for values in losses)


def test_offpolicy_learns_from_target_pictures(server):
    graph = only_training("cfg_absorption", "targets", method="offpolicy")
    for key, colour in (("60", 255), ("61", 65280)):
        inputs = {"width": 64, "height": 64, "batch_size": 2, "color": colour}
        graph[key] = {"class_type": "EmptyImage", "inputs": inputs}
    prompts = {"content": "lines of text", "content.prompts": "make it green\nturn it green"}
    graph[node_of(graph, "Bucket")]["inputs"] = {**prompts, "source_images": ["60", 0], "target_images": ["61", 0]}
    entry = server.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")


def test_a_csv_of_the_input_folder_trains(server, base):
    (base / "input" / "mine.csv").write_text("prompt,task\na red circle,t2i\na blue star,other\n", encoding="utf-8")
    graph = only_training("cfg_absorption", "csv")
    graph[node_of(graph, "Bucket")]["inputs"] = {
        "content": "CSV file", "content.file": "mine.csv", "content.task": "t2i"
    }  # fmt: skip
    entry = server.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")
    graph[node_of(graph, "Bucket")]["inputs"]["content.task"] = "t2j"
    with pytest.raises(Refused, match="t2j"):
        server.queue(graph)


def test_a_folder_of_captions_trains_with_wildcards(server, base):
    for folder, text in {"captions": "a {red|blue} __shape__", "wildcards": "circle\nstar"}.items():
        (base / "input" / folder).mkdir()
        (base / "input" / folder / "shape.txt").write_text(text, encoding="utf-8")
    graph = only_training("cfg_absorption", "captions")
    graph[node_of(graph, "Bucket")]["inputs"] = {
        "content": "CSV file", "content.file": "captions/", "content.task": "", "wildcards": 6
    }  # fmt: skip
    entry = server.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")


def test_a_mix_and_a_guided_mix_train_and_compare(server):
    graph = short("cfg_absorption", "mix")
    graph["70"] = {**graph[node_of(graph, "Teacher")], "inputs": {**graph["2"]["inputs"], "lora": "shapes:edit"}}
    graph["71"] = {"class_type": "DanceOPD_Mixed", "inputs": {"first": ["2", 0], "second": ["70", 0], "share": 0.25}}
    graph[node_of(graph, "Guided")]["inputs"]["field"] = ["71", 0]
    entry = server.run(graph)
    assert succeeded(entry), messages(entry).get("execution_error")


def test_a_student_goes_on_from_a_trained_lora(server):
    first = only_training("cfg_absorption", "first")
    assert succeeded(server.run(first))
    then = only_training("cfg_absorption", "then")
    change("Student", start="first.safetensors")(then)
    assert succeeded(server.run(then))
    itself = only_training("cfg_absorption", "first", seed=5)
    change("Student", start="first.safetensors")(itself)
    assert (
        "also a LoRA that the run is trained from"
        in messages(server.run(itself))["execution_error"]["exception_message"]
    )


def test_a_killed_server_loses_at_most_what_was_not_saved(servers, base):
    server = servers[0]
    graph = only_training("cfg_absorption", "killed", steps=300, save_every=2, validate_every=0)
    node = node_of(graph, "Train")
    server.queue(graph)
    server.until(lambda: (base / "output/danceopd/killed/state.safetensors").exists() and updates(server, node) > 5)
    server.process.kill()
    server.process.wait()
    servers[0] = server = Server(comfyui_root(), comfyui_python(), base)
    assert server.get("/danceopd/runs/killed")["state"] == "cancelled"
    prompt = server.queue(graph)
    server.until(lambda: updates(server, node) >= 4)
    server.post("/danceopd/stop", {"node": node})
    assert succeeded(server.wait(prompt))
    history = server.get("/danceopd/runs/killed/history")["updates"]
    assert history == list(range(1, len(history) + 1))


def change(kind, **inputs):
    def changed(graph):
        graph[node_of(graph, kind)]["inputs"] |= inputs

    return changed


def extra_source(graph):
    graph["60"] = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 3, "color": 0}}
    prompts = {"content": "lines of text", "content.prompts": "a\nb", "source_images": ["60", 0]}
    graph[node_of(graph, "Bucket")]["inputs"] = prompts


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (change("LoadModel", model="../../secret"), "model"),
        (change("Teacher", lora="../../../etc/passwd"), "lora"),
        (change("Teacher", checkpoint="/etc/passwd"), "checkpoint"),
        (change("Bucket", **{"content": "lines of text", "content.prompts": " \n# none"}), "bucket is empty"),
        (change("Bucket", **{"content": "CSV file", "content.file": "/etc/passwd", "content.task": ""}), "file"),
        (change("Bucket", **{"content": "CSV file", "content.file": "none", "content.task": ""}), "file"),
        (change("Bucket", **{"content.kind": "nonsense"}), "kind"),
        (change("Routes", **{"routes.weight1": 0.0}), "weight"),
        (change("Guided", scale=-1.0), "scale"),
        (change("Student", start="/etc/passwd"), "start"),
        (change("Student", targets="nothing"), "names end in"),
        (change("Train", name="../escape"), "name"),
        (change("Train", method="magic"), "method"),
        (change("Train", width=44), "width"),
        (change("Train", k=99), "k: "),
        (change("Train", sigma_low=0.5, sigma_high=0.4), "sigma_low and sigma_high: "),
        (change("Train", schedule="constant", warmup=3), "warmup: "),
        (change("Train", more_settings="out=/tmp/x"), "more_settings"),
        (change("Train", learning_rate=1.0, more_settings="eta=1"), "more_settings: eta"),
        (change("Train", method="offpolicy", bias="low"), "target"),
        (extra_source, "source_images"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error_and_the_next_prompt_runs(server, base, fault, told):
    graph = only_training("cfg_absorption", "bad")
    fault(graph)
    try:
        entry = server.run(graph)
    except Refused as refused:
        text = str(refused)
    else:
        assert not succeeded(entry)
        text = messages(entry)["execution_error"]["exception_message"]
    assert told in text
    assert not (base / "output/danceopd/bad").exists()
    assert succeeded(server.run(only_training("cfg_absorption", "good")))


@pytest.mark.parametrize(
    "path", ["/danceopd/runs/absent", "/danceopd/runs/..%2F..%2Fuser", "/danceopd/runs/good/pictures/..%2Fstatus.json"]
)
def test_routes_give_only_what_belongs_to_a_run(server, path):
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.raw(path)
    assert caught.value.code == 404


def test_a_node_that_told_nothing_is_null(server):
    assert server.get("/danceopd/nodes/987654") is None
