"""The HTTP API of a run's results: who may publish, delete and open, and that nothing but the run is touched."""

import json

import pytest
from filelock import FileLock
from PIL import Image

from .graphs import only_training
from .server import succeeded
from .test_http import JSON, ask, folder

RUN = "judged"


@pytest.fixture(scope="module")
def trained(servers):
    """A run of two routes, one of which is only watched, over two prompts of the user."""
    graph = only_training("quickstart", RUN, validation_prompts="a red circle\na blue square")
    node = next(key for key, node in graph.items() if node["class_type"] == "DanceOPD_Train")
    assert succeeded(servers[0].run(graph))
    return node


def post(server, path, body=b"{}", headers=JSON):
    status, text = ask(server, "POST", f"/danceopd/runs/{path}", headers, body)
    return status, json.loads(text)


def test_an_end_tells_what_was_saved_and_the_strip_shows_how_it_came_about(server, base, trained):
    status = server.get(f"/danceopd/runs/{RUN}")
    saved, best = status["saved"], status["best"]
    assert (saved["lora"], saved["folder"], saved["update"]) == (f"{RUN}.safetensors", f"output/danceopd/{RUN}", 4)
    assert saved["seconds"] > 0
    assert best["update"] in (2, 4)
    assert saved["best_kept"] == (best["update"] == 2)
    assert (status["finished_before"], status["watched"]) == (False, [])
    assert set(status["held_out"].values()) == {0}  # of 12 prompts
    strip = server.get(f"/danceopd/runs/{RUN}/strip")
    assert [row["prompt"] for row in strip["rows"]] == ["a red circle", "a blue square"]
    assert [column["update"] for column in strip["columns"]] == [0, 2, 4]
    urls = [row["teacher"] for row in strip["rows"]] + [url for part in strip["columns"] for url in part["pictures"]]
    pictures = {server.raw(url) for url in urls}
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert len(pictures) > 4
    with Image.open(base / "output" / "danceopd" / RUN / "samples.png") as sheet:
        assert sheet.width > 3 * 128
    assert f"../danceopd/{RUN}/samples-published.png" in (base / "output/loras" / f"{RUN}.md").read_text("utf-8")


def test_the_best_is_published_in_the_place_of_the_last_and_back(server, base, trained):
    lora, best = base / "output" / "loras" / f"{RUN}.safetensors", server.get(f"/danceopd/runs/{RUN}")["best"]
    assert post(server, f"{RUN}/publish", b'{"update": "best"}') == (200, {"lora": lora.name, "update": best["update"]})
    status = server.get(f"/danceopd/runs/{RUN}")
    assert (status["saved"]["update"], status["saved"]["best_kept"]) == (best["update"], False)
    assert server.get(f"/danceopd/nodes/{trained}")["saved"] == status["saved"]
    assert f"{best['update']} updates of" in lora.with_suffix(".md").read_text("utf-8")
    assert post(server, f"{RUN}/publish", b'{"update": "last"}') == (200, {"lora": lora.name, "update": 4})
    for body in (b"{}", b'{"update": "first"}', b'{"update": 4}', b"[]", b"", b'{"update": ["best"]}'):
        assert post(server, f"{RUN}/publish", body)[0] == 400
    with FileLock(base / "output" / "danceopd" / RUN / ".lock"):
        status, answer = post(server, f"{RUN}/publish", b'{"update": "best"}')
        assert (status, "in use by" in answer["error"]) == (409, True)


BAD = [
    ({"Content-Type": "text/plain"}, 415),
    ({}, 415),
    ({**JSON, "Origin": "http://evil.example"}, 403),
    ({**JSON, "Origin": "null"}, 403),
    ({**JSON, "Sec-Fetch-Site": "cross-site"}, 403),
]


@pytest.mark.parametrize("action", ["publish", "delete", "open"])
def test_no_page_elsewhere_changes_a_run(server, base, action):
    path, body = folder(base, "own"), b'{"update": "last"}'
    for headers, expected in BAD:
        assert ask(server, "POST", f"/danceopd/runs/own/{action}", headers, body)[0] == expected
    for name in ("..", "..%2Floras", "%2e%2e%2f", "a%00b", "absent", "%ED%A0%80", "own%2Fpictures"):
        status, _ = ask(server, "POST", f"/danceopd/runs/{name}/{action}", JSON, body)
        assert status in (400, 403, 404, 405)
    assert ask(server, "POST", f"/danceopd/runs/own/{action}", JSON, b'{"a": "' + b"x" * 5000 + b'"}')[0] == 413
    assert ask(server, "GET", f"/danceopd/runs/own/{action}")[0] in (404, 405)
    assert (path / "identity.json").exists()


def test_a_stored_run_is_listed_and_deleted_and_its_lora_stays(server, base):
    path = folder(base, "unwanted", history__jsonl="x" * 1000)
    lora = base / "output" / "loras" / "unwanted.safetensors"
    lora.write_bytes(b"somebody's")
    (path / "status.json").write_text(json.dumps({
        "state": "done", "update": 3, "steps": 3, "losses": {}, "pictures": [],
        "saved": {"lora": "../../x.safetensors", "folder": "", "update": 3, "seconds": 1.0, "best_kept": False},
    }))  # fmt: skip
    found = {run["name"]: run for run in server.get("/danceopd/stored-runs")}["unwanted"]
    assert (found["bytes"] > 1000, found["state"], found["lora"]) == (True, "", None)  # a status that no run wrote
    with FileLock(path / ".lock"):
        assert post(server, "unwanted/delete")[0] == 409
    assert path.is_dir()
    status, answer = post(server, "unwanted/delete")
    assert (status, answer["deleted"] > 1000) == (200, True)
    assert not path.exists()
    assert lora.read_bytes() == b"somebody's"
    assert post(server, "unwanted/delete")[0] == 404


def test_only_the_machine_itself_opens_a_folder(server, base):
    folder(base, "shown")
    for headers in ({**JSON, "X-Forwarded-For": "10.0.0.1"}, {**JSON, "Host": "example.org"}):
        status, answer = post(server, "shown/open", b"{}", headers)
        assert (status, "output/danceopd/shown" in answer["error"]) == (403, True)
        assert str(base) not in answer["error"]
    status, answer = post(server, "shown/open")  # the tests' server has no desktop
    assert status == 200 or (status == 409 and str(base / "output" / "danceopd" / "shown") in answer["error"])
