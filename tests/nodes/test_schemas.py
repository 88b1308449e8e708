"""The node schemas as ComfyUI itself reports them."""

import ast
from pathlib import Path

from danceopd_core.algorithm.methods import METHODS
from danceopd_core.algorithm.query import QUERIES
from danceopd_core.algorithm.routers import ROUTERS
from danceopd_core.shapes.language import KINDS

from ..templates import PAGES, read
from ..web.texts import node_schemas

ROOT = Path(__file__).parent.parent.parent
NODES = {
    f"DanceOPD_{name}"
    for name in (
        "LoadModel", "Teacher", "Guided", "Mixed", "Bucket", "Routes", "LearnedRouter", "Student", "Train", "Sample",
        "Compare", "Evaluate", "LoadShapes", "LoadLora", "NativeModel", "NativeField", "OtherField",
        "ConditioningBucket", "LoraReport",
    )
}  # fmt: skip


def every_input(group):
    """(id, type, options) of the inputs of a schema, including those inside dynamic combos."""
    for kind in ("required", "optional"):
        for name, (type_, options) in group.get(kind, {}).items():
            yield name, type_, options
            for option in options.get("options", []) if type_ == "COMFY_DYNAMICCOMBO_V3" else []:
                yield from every_input(option["inputs"])


def options_of(pack, node, name):
    return next(options["options"] for found, _, options in every_input(pack["nodes"][node]["input"]) if found == name)


def test_these_are_the_nodes(pack):
    assert set(pack["nodes"]) == NODES
    assert not pack["mappings"], "ComfyUI would not call comfy_entrypoint"
    assert pack["web"] == "./web"


def test_importing_the_pack_is_quick_and_imports_nothing_heavy(pack):
    assert pack["seconds"] < 0.3
    assert pack["imported"] == ["pack"]


def test_every_node_describes_itself(pack):
    for name, node in pack["nodes"].items():
        assert node["category"] == "DanceOPD"
        assert node["display_name"], name
        assert len(node["description"]) > 30, name
        assert "danceopd" in node["search_aliases"], name
        assert node["bases"] == ["ComfyNode"], f"{name}: a subclass of a node inherits its cached schema"


def test_every_input_and_output_has_a_tooltip(pack):
    for name, node in pack["nodes"].items():
        for found, _, options in every_input(node["input"]):
            assert options.get("tooltip"), f"{name}.{found}"
        for output in node["outputs"]:
            assert output["display_name"], f"{name}.{output['id']}"
            assert output["tooltip"], f"{name}.{output['id']}"


def test_the_texts_read_from_source_are_those_that_comfyui_shows(pack):
    nodes = {node.node_id: node for node in node_schemas.read_nodes()}
    assert set(nodes) == set(pack["nodes"])
    for name, node in pack["nodes"].items():
        texts = nodes[name]
        assert (texts.display_name, texts.description) == (node["display_name"], node["description"])
        shown = {
            (found, options.get("display_name") or found, options["tooltip"])
            for found, _, options in every_input(node["input"])
        }
        read = {(socket.id, socket.name, socket.tooltip) for socket in texts.inputs}
        assert {entry for entry in read if entry[0] != node_schemas.CONTROL} == shown
        outputs = [(output["id"], output["display_name"], output["tooltip"]) for output in node["outputs"]]
        assert [(socket.id, socket.name, socket.tooltip) for socket in texts.outputs] == outputs


def test_ids_are_unique_over_inputs_and_outputs(pack):
    for name, node in pack["nodes"].items():
        inputs = {found for found, _, _ in every_input(node["input"])}
        outputs = [output["id"] for output in node["outputs"]]
        assert len(set(outputs)) == len(outputs), name
        assert not inputs & set(outputs), name


def test_node_ids_can_be_read_as_text():
    ids = set()
    for path in (ROOT / "nodes").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "node_id":
                assert isinstance(node.value, ast.Constant)
                ids.add(node.value.value)
    assert ids == NODES


def test_combos_offer_what_the_core_has(pack):
    assert set(options_of(pack, "DanceOPD_Train", "method")) == set(METHODS)
    assert set(options_of(pack, "DanceOPD_Train", "bias")) == set(QUERIES)
    assert set(options_of(pack, "DanceOPD_Routes", "router")) == set(ROUTERS)
    assert len(options_of(pack, "DanceOPD_Bucket", "kind")) == len(KINDS)


def test_widgets_stand_where_saved_workflows_have_them(pack):
    """Widget values are saved by position; inputs that older prompts lack are optional."""
    page = read(PAGES["quickstart"])
    (saved,) = (list(node["widgets_values_named"]) for node in page["nodes"] if node["type"] == "DanceOPD_Train")
    group = pack["nodes"]["DanceOPD_Train"]["input"]
    sockets = ("routes", "student", "validation_sources")
    shown = [name for kind in ("required", "optional") for name in group[kind] if name not in sockets]
    assert shown == saved
    assert shown.index("more_settings") == 20
    assert set(group["optional"]) == {"validation_sources", *shown[21:]}


def test_training_fits_the_stock_nodes(pack):
    train = pack["nodes"]["DanceOPD_Train"]
    assert train["is_output_node"]
    assert train["not_idempotent"], "two equal trainers each have their own panel"
    assert [output["type"] for output in train["outputs"]] == [
        "LORA_MODEL",
        "LOSS_MAP",
        "STRING",
        "IMAGE",
        "INT",
        "MODEL",
    ]
