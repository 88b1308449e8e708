"""The HTTP API under requests that no honest client sends, and over run folders that no run wrote."""

import http.client
import json
import threading
import time
from urllib.parse import urlsplit

import pytest

from .graphs import node_of, short
from .native_graphs import native
from .server import succeeded

JSON = {"Content-Type": "application/json"}
BODY = b'{"node": "1"}'


def ask(server, method, path, headers=None, body=None):
    """(status, answer) with these headers and no others; Host as a client sends it unless it is None."""
    host = urlsplit(server.url).netloc
    connection = http.client.HTTPConnection(host, timeout=60)
    headers = {"Host": host, **(headers or {})}
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        if value is not None:
            connection.putheader(name, value.replace("HOST", host))
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, text


STOPS = [
    ({**JSON}, BODY, 200),
    ({"Content-Type": "application/json; charset=utf-8"}, BODY, 200),
    ({**JSON, "Origin": "http://HOST"}, BODY, 200),
    ({**JSON, "Sec-Fetch-Site": "same-origin", "Origin": "http://HOST"}, BODY, 200),
    ({"Content-Type": "text/plain"}, BODY, 415),
    ({"Content-Type": "application/x-www-form-urlencoded"}, BODY, 415),
    ({"Content-Type": "text/plain; application/json"}, BODY, 415),
    ({}, BODY, 415),
    ({**JSON, "Origin": "null"}, BODY, 403),
    ({**JSON, "Origin": ""}, BODY, 403),
    ({**JSON, "Origin": "http://evil.example"}, BODY, 403),
    ({**JSON, "Origin": "http://127.0.0.1.evil.example"}, BODY, 403),
    ({**JSON, "Sec-Fetch-Site": "cross-site"}, BODY, 403),
    ({**JSON, "Host": None}, BODY, 400),  # aiohttp itself
    ({**JSON, "Origin": "http://localhost:1"}, BODY, 403),
    ({"Content-Type": "application/json; charset=nonsense"}, BODY, 200),
    (JSON, b"", 400),
    (JSON, b"\xff\xfe", 400),
    (JSON, b"[" * 3000, 400),
    (JSON, b'{"node": ' + b"[" * 1000 + b"]" * 1000 + b"}", 400),
    (JSON, b'{"node": {"a": 1}}', 400),
    (JSON, b'{"node": true}', 400),
    (JSON, b"[1]", 400),
    (JSON, b'{"node": "' + b"1" * 5000 + b'"}', 413),
    (JSON, b'{"node": "\\ud800"}', 200),
]


@pytest.mark.parametrize(("headers", "body", "status"), STOPS, ids=range(len(STOPS)))
def test_only_a_page_of_the_server_or_a_program_stops_a_node(server, headers, body, status):
    found, text = ask(server, "POST", "/danceopd/stop", headers, body)
    assert found == status, text
    assert status != 200 or json.loads(text)["stopping"] is False


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "..%2F..%2Fuser",
        "%2e%2e",
        "a%2Fb",
        "a%5Cb",
        "%ED%A0%80",
        "a%00b",
        "%1b%5b2J",
        "x" * 5000,
        "%F0%9F",
        "%20odd",
    ],
)
@pytest.mark.parametrize("path", ["/danceopd/runs/{}", "/danceopd/runs/{}/history", "/danceopd/runs/{}/pictures/a.png"])
def test_names_that_no_run_has_are_not_found(server, path, name):
    status, _ = ask(server, "GET", path.format(name))
    assert status in (400, 403, 404)


def folder(base, name, **files):
    path = base / "output" / "danceopd" / name
    path.mkdir(parents=True, exist_ok=True)
    for file, text in {"identity.json": "{}", **files}.items():
        (path / file.replace("__", ".")).write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def line(update, **more):
    return json.dumps({"update": update, "losses": {"a": 1.0 / update, "b": None}, **more}) + "\n"


DEEP = "[" * 100_000
MALFORMED = {
    "torn": (line(1) + line(2) + '{"update": 3, "los', [1, 2], 1),
    "types": (line(1) + '[]\n3\nnull\n"x"\n{"update": "4"}\n{"update": 5, "losses": [1]}\n' + line(6), [1, 6], 6),
    "deep": (line(1) + DEEP + "\n" + line(2), [1, 2], 1),
    "deep losses": ('{"update": 1, "losses": {"a": [[[[1]]]]}}\n' + line(2), [2], 1),
    "infinite": ('{"update": 1, "losses": {"a": NaN, "b": Infinity}}\n', [1], 0),
    "empty": ("\n\n", [], 0),
    "long number": ('{"update": ' + "9" * 6000 + ', "losses": {}}\n' + line(2), [2], 1),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_history_is_answered_as_far_as_it_goes(server, base, name):
    text, updates, skipped = MALFORMED[name]
    folder(base, name, history__jsonl=text)
    found = server.get(f"/danceopd/runs/{name.replace(' ', '%20')}/history")
    assert (found["updates"], found["skipped"], found["next"]) == (updates, skipped, None)
    assert all(len(values) == len(updates) for values in found["losses"].values())


STATUSES = {
    "none": None, "torn status": '{"state": "tr', "list": "[1]", "deep status": DEEP, "wrong types": '{"state": 3}',
    "half": '{"state": "done", "update": -1, "steps": "x", "losses": [], "pictures": [{}]}',
}  # fmt: skip


@pytest.mark.parametrize("name", STATUSES)
def test_a_status_that_cannot_be_read_is_null(server, base, name):
    files = {} if STATUSES[name] is None else {"status__json": STATUSES[name]}
    folder(base, name, **files)
    assert server.get(f"/danceopd/runs/{name.replace(' ', '%20')}") is None


def test_what_is_no_text_is_told(server, base):
    folder(base, "bytes", history__jsonl=b"\xff\xfe\x00")
    status, text = ask(server, "GET", "/danceopd/runs/bytes/history")
    assert (status, "UTF-8" in text.decode()) == (422, True)
    (folder(base, "nested") / "history.jsonl").mkdir(exist_ok=True)
    status, text = ask(server, "GET", "/danceopd/runs/nested/history")
    assert (status, "regular file" in text.decode() or "cannot be read" in text.decode()) == (422, True)


def test_a_picture_is_one_of_the_run(server, base, tmp_path):
    pictures = folder(base, "pictured") / "pictures"
    pictures.mkdir(exist_ok=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (pictures / "link.png").symlink_to(tmp_path / "secret.png")
    (pictures / "own.png").write_bytes(b"own")
    assert server.raw("/danceopd/runs/pictured/pictures/own.png") == b"own"
    for name in ("link.png", "..%2Fidentity.json", "%2e%2e%2fidentity.json", "a%00.png", "%ED%A0%80.png"):
        assert ask(server, "GET", f"/danceopd/runs/pictured/pictures/{name}")[0] in (400, 404)


LINES = 60_000


@pytest.fixture(scope="module")
def long(base):
    more = {"errors": {"a": 0.5}, "indices": [1, 2], "sigmas": [0.5, 0.25], "grad_norm": 1.0, "seconds": {"total": 1.0}}
    folder(
        base,
        "long",
        history__jsonl="".join(line(update, **more) for update in range(1, LINES + 1)),
        validation__jsonl="".join(f'{{"update": {n}, "errors": {{"a": 0.5}}}}\n' for n in range(100, LINES, 100)),
    )


def test_pages_are_the_history(server, long):
    whole = server.get("/danceopd/runs/long/history")
    assert whole["updates"] == list(range(1, LINES + 1))
    updates, losses, validation, after = [], [], [], 0
    while after is not None:
        page = server.get(f"/danceopd/runs/long/history?after={after}&limit=25000")
        assert len(page["updates"]) <= 25000
        updates, losses = updates + page["updates"], losses + page["losses"]["a"]
        validation, after = validation + page["validation"], page["next"]
    assert (updates, losses, validation) == (whole["updates"], whole["losses"]["a"], whole["validation"])


@pytest.mark.parametrize("query", ["after=-1", "limit=0", "limit=x", "after=1e3", "after=99999999999999999999"])
def test_numbers_of_the_query_are_whole_numbers(server, long, query):
    assert ask(server, "GET", f"/danceopd/runs/long/history?{query}")[0] == 400


def test_a_long_history_keeps_no_other_request_waiting(server, long):
    """The longest answer of a small request, while histories of 60,000 lines are asked for one after another."""
    longest = []
    for _ in range(3):  # other tests may have the processor for a moment; the loop's own waiting comes each time
        over, slowest = threading.Event(), []

        def ask_small(over=over, slowest=slowest):
            while not over.is_set():
                began = time.monotonic()
                server.get("/danceopd/nodes/1")
                slowest.append(time.monotonic() - began)
                time.sleep(0.01)

        thread = threading.Thread(target=ask_small)
        thread.start()
        try:
            for query in ("", "", "?limit=5000", "?after=50000&limit=5000"):
                assert server.get(f"/danceopd/runs/long/history{query}")["updates"]
        finally:
            over.set()
            thread.join()
        print(f"slowest of {len(slowest)} small requests: {max(slowest):.3f} s")
        longest.append(max(slowest))
        if longest[-1] < 0.6:
            return
    raise AssertionError(f"the longest answers took {longest} s")


UNTOLD = {"memory": None, "seconds": None, "basis": "shapes", "text": ""}


def estimate(server, prompt, node):
    body = json.dumps({"prompt": prompt, "node": node}).encode()
    status, text = ask(server, "POST", "/danceopd/estimate", JSON, body)
    return status, json.loads(text)


@pytest.mark.parametrize(
    "graph", [short("quickstart", "estimated", steps=2, batch=3), native("estimated too", steps=2, batch=5)]
)
def test_an_estimate_is_of_the_shapes_and_then_measured(server, graph):
    """No other test trains such batches: any run with the same work would be a measurement."""
    train = node_of(graph, "Train")
    status, before = estimate(server, graph, train)
    assert (status, before["seconds"], before["basis"]) == (200, None, "shapes")
    assert before["memory"] > 10**7
    assert before["text"].endswith("time is known after the first updates")
    assert succeeded(server.run({key: node for key, node in graph.items() if "Compare" not in node["class_type"]}))
    _, after = estimate(server, graph, train)
    assert (after["memory"], after["basis"]) == (before["memory"], "measured")
    assert after["seconds"] > 0
    assert after["text"].endswith(" here")


def test_an_estimate_of_a_value_that_another_node_gives_tells_nothing(server):
    graph = short("quickstart")
    graph[node_of(graph, "Train")]["inputs"]["batch"] = ["12", 0]
    assert estimate(server, graph, node_of(graph, "Train")) == (200, UNTOLD | {"reason": ""})


TURNING = {
    "1": {"class_type": "DanceOPD_Train", "inputs": {"routes": ["2", 0], "student": ["2", 0]}},
    "2": {"class_type": "DanceOPD_LearnedRouter", "inputs": {"routes": ["2", 0]}},
}


def over(field):
    """A training whose route has the field of node "0"."""
    routes = {"routes": "1", "routes.field1": ["0", 0], "routes.bucket1": ["bucket", 0]}
    return {
        "1": {"class_type": "DanceOPD_Train", "inputs": {"routes": ["routes", 0], "student": ["student", 0]}},
        "routes": {"class_type": "DanceOPD_Routes", "inputs": routes},
        **field,
    }


TOWER = over({
    **{
        str(-number): {
            "class_type": "DanceOPD_Mixed", "inputs": {"first": [str(-number - 1), 0], "second": [str(-number - 1), 0]},
        }
        for number in range(50)
    },
    "-50": {"class_type": "DanceOPD_Teacher", "inputs": {"model": ["flow", 0]}},
    "flow": {"class_type": "DanceOPD_LoadModel", "inputs": {"model": "shapes"}},
})  # fmt: skip
LOOP = over({
    "0": {"class_type": "DanceOPD_Teacher", "inputs": {"model": ["flow", 0]}},
    "flow": {"class_type": "DanceOPD_NativeModel", "inputs": {"model": ["lora", 0]}},
    "lora": {"class_type": "DanceOPD_LoadLora", "inputs": {"model": ["lora", 0]}},
})  # fmt: skip
EMPTY = {"1": {"class_type": "DanceOPD_Train", "inputs": {}}}
PROMPTS = [
    ({}, 422),
    ([], 400),
    ({"1": 3}, 422),
    (EMPTY | {"2": {"class_type": "DanceOPD_Routes"}}, 422),
    ({"1": {"class_type": "DanceOPD_Teacher", "inputs": {}}}, 422),
]


@pytest.mark.parametrize(("prompt", "status"), PROMPTS, ids=range(len(PROMPTS)))
def test_an_estimate_of_what_is_no_training_is_refused(server, prompt, status):
    answer, told = estimate(server, prompt, "1")
    assert answer == status
    assert told["error"]


@pytest.mark.parametrize(("prompt", "reason"), [
    (EMPTY, "routes: nothing is connected"), (TURNING, "in a circle"), (LOOP, "in a circle"),
    (TOWER, "in a circle"),  # what is asked for twice on each floor is asked for 2**50 times
])  # fmt: skip
def test_there_is_a_reason_where_a_graph_is_not_ready_to_train(server, prompt, reason):
    status, told = estimate(server, prompt, "1")
    assert (status, {key: told[key] for key in UNTOLD}) == (200, UNTOLD)
    assert reason in told["reason"]


@pytest.mark.parametrize(("kind", "name", "value"), [
    ("Train", "steps", "many"), ("Train", "rollout_steps", -1), ("Train", "width", 10**9),
    ("Train", "rollout_steps", 10**9), ("Train", "batch", [1]), ("Train", "bias", "x"),
    ("LoadModel", "model", "../secret"), ("Teacher", "lora", 3), ("Student", "rank", True),
    ("Bucket", "content.kind", "?"), ("Guided", "scale", -1.0), ("Routes", "routes", "9"),
    ("Teacher", "lora", "not here.safetensors"), ("Student", "start", "not here.safetensors"),
])  # fmt: skip
def test_wrong_values_and_missing_files_are_the_reason_why_there_is_no_estimate(server, kind, name, value):
    graph = short("quickstart")
    graph[node_of(graph, kind)]["inputs"][name] = value
    status, told = estimate(server, graph, node_of(graph, "Train"))
    assert (status, {key: told[key] for key in UNTOLD}) == (200, UNTOLD)
    assert name.rpartition(".")[2] in told["reason"]


def test_an_estimate_is_asked_by_pages_of_the_server_only(server):
    body = json.dumps({"prompt": {}, "node": "1"}).encode()
    assert ask(server, "POST", "/danceopd/estimate", {"Content-Type": "text/plain"}, body)[0] == 415
    assert ask(server, "POST", "/danceopd/estimate", {**JSON, "Origin": "http://evil.example"}, body)[0] == 403
    assert ask(server, "POST", "/danceopd/estimate", JSON, b"[" * 2000)[0] == 400
