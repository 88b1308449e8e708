"""The shipped workflows, as far as they can be read without the page that converts them."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent.parent / "workflows"
NAMES = {"quickstart", "local_global_edit", "realism", "cfg_absorption", "sample_student"}
NOTES = ("MarkdownNote", "Note")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_workflow_comes_in_both_formats():
    assert {path.stem for path in FOLDER.glob("*.json")} == NAMES
    assert {path.stem for path in (FOLDER / "api").glob("*.json")} == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_both_formats_hold_the_same_nodes_and_the_page_has_a_note(name):
    page, api = read(FOLDER / f"{name}.json"), read(FOLDER / "api" / f"{name}.json")
    nodes = {str(node["id"]): node["type"] for node in page["nodes"] if node["type"] not in NOTES}
    assert nodes == {key: node["class_type"] for key, node in api.items()}
    assert any(node["type"] in NOTES for node in page["nodes"])
    links = {(str(source), slot, str(target)) for _, source, slot, target, _, _ in page["links"]}
    wired = [(key, value) for key, node in api.items() for value in node["inputs"].values()]
    assert links == {(value[0], value[1], key) for key, value in wired if isinstance(value, list)}


def test_the_sampling_workflow_is_an_app_too():
    page = read(FOLDER / "sample_student.json")
    form = page["extra"]["linearData"]
    known = {node["id"] for node in page["nodes"]}
    assert form["inputs"]
    assert {entry[0] for entry in form["inputs"]} | set(form["outputs"]) <= known
