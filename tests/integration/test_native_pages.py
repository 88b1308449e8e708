"""Workflows over ComfyUI's own models on its page: Load Shapes bypassed for other loaders, and the subgraph."""

import json

import pytest

from ..templates import PAGES, read
from .graphs import native_names
from .page import browsing
from .server import messages, succeeded

BLUEPRINT = "Distil LoRAs into one"
TO_OWN_FILES = """
() => {
    for (const node of app.graph.nodes)
        if (node.type === 'DanceOPD_LoadShapes') node.mode = 4;
        else if (node.mode === 2) node.mode = 0;
}
"""
ADD_BLUEPRINT = """
(values) => {
    const node = app.graph.nodes[0];
    for (const [name, value] of Object.entries(values)) {
        const widget = node.widgets.find((widget) => widget.name === name);
        if (!widget) throw new Error(`no widget ${name}`);
        widget.value = value;
        widget.callback?.(value);
    }
    const shapes = LiteGraph.createNode('DanceOPD_LoadShapes');
    app.graph.add(shapes);
    for (const name of ['model', 'clip', 'vae'])
        shapes.connect(shapes.outputs.findIndex((output) => output.name === name.toUpperCase()), node,
            node.inputs.findIndex((input) => input.name === name));
    const seen = LiteGraph.createNode('PreviewAny');
    app.graph.add(seen);
    node.connect(node.outputs.findIndex((output) => output.name === 'lora name'), seen, 0);
}
"""


@pytest.fixture(scope="module")
def page(servers, tmp_path_factory):
    with browsing(servers[0].url, tmp_path_factory.mktemp("native")) as page:
        yield page
        assert not page.complaints


def shipped_page(name):
    return read(PAGES[name])


def test_a_bypassed_load_shapes_leaves_every_link_to_the_other_loaders(page):
    for name in native_names():
        page.load(shipped_page(name))
        before = page.as_api()
        page.page.evaluate(TO_OWN_FILES)
        after = page.as_api()
        (shapes,) = (key for key, node in before.items() if node["class_type"] == "DanceOPD_LoadShapes")
        loaders = {node["class_type"]: key for key, node in after.items() if key not in before}
        assert set(loaders) == {"UNETLoader", "CLIPLoader", "VAELoader"}, name
        slots = [loaders["UNETLoader"], loaders["CLIPLoader"], loaders["VAELoader"]]
        moved = 0
        for key, node in before.items():
            for given, value in node["inputs"].items() if key != shapes else ():
                from_shapes = isinstance(value, list) and value[0] == shapes
                assert after[key]["inputs"][given] == ([slots[value[1]], 0] if from_shapes else value), (name, key)
                moved += from_shapes
        assert moved >= 5
        assert shapes not in after


def test_the_subgraph_is_offered_and_trains(page, server):
    offered = {entry["name"]: key for key, entry in server.get("/global_subgraphs").items()}
    data = json.loads(server.get(f"/global_subgraphs/{offered[BLUEPRINT]}")["data"])
    page.load(data)
    values = {
        "LoRA 1": "shapes:lit", "prompts of LoRA 1": "a red circle\\na blue star", "LoRA 2": "shapes:guided",
        "prompts of LoRA 2": "two squares\\nthree circles", "rank": 4, "name": "subgraph", "steps": 2,
        "rollout steps": 2,
    }  # fmt: skip
    page.page.evaluate(ADD_BLUEPRINT, values)
    page.shot("subgraph")
    entry = server.run(page.as_api())
    assert succeeded(entry), messages(entry).get("execution_error")
    assert (server.base / "output/loras/subgraph.safetensors").is_file()
