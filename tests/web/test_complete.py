"""Help pages, locales and scripts, checked without a server: the nodes are read as text."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
WEB = ROOT / "web"
LANGUAGES = ("en", "zh", "ja")
SCRIPTS = sorted(WEB.rglob("*.js"))


def schemas() -> dict[str, set[str]]:
    """The ids of a schema's inputs, by node id; one inside a dynamic input as the page's keys call it: content_prompts.

    Of inputs that a loop numbers the first stands for all.
    """
    found = {}
    for path in sorted((ROOT / "nodes").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        helpers = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "Schema":
                given = {keyword.arg: keyword.value for keyword in node.keywords}
                identity = given["node_id"]
                assert isinstance(identity, ast.Constant), "the Manager's scanner reads node ids as text"
                found[str(identity.value)] = set(_inputs(given["inputs"], helpers))
    return found


def _inputs(tree: ast.AST, helpers: dict[str, ast.FunctionDef], prefix: str = "") -> list[str]:
    inside, found = prefix, []
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Attribute) and tree.func.attr == "Input":
        name = tree.args[0]
        parts = name.values if isinstance(name, ast.JoinedStr) else [name]
        found.append(prefix + "".join(str(p.value) if isinstance(p, ast.Constant) else "1" for p in parts))
        inside = found[0] + "_"
    elif isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id in helpers:
        return _inputs(helpers[tree.func.id], helpers, prefix)
    return found + [name for child in ast.iter_child_nodes(tree) for name in _inputs(child, helpers, inside)]


SCHEMAS = schemas()


def locale(language: str, file: str) -> dict:
    return json.loads((ROOT / "locales" / language / f"{file}.json").read_text(encoding="utf-8"))


def texts(tree: object) -> list[str]:
    if isinstance(tree, dict):
        return [text for inner in tree.values() for text in texts(inner)]
    return [str(tree)]


def shape(tree: object) -> object:
    return {key: shape(inner) for key, inner in tree.items()} if isinstance(tree, dict) else None


def test_there_are_nodes():
    assert "DanceOPD_Train" in SCHEMAS
    assert "name" in SCHEMAS["DanceOPD_Train"]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", SCHEMAS)
def test_every_node_has_a_help_page_that_tells_of_each_input(node, language):
    page = (WEB / "docs" / node / f"{language}.md").read_text(encoding="utf-8")
    named = {re.sub("^(content|routes)_", "", name) for name in SCHEMAS[node]}
    missing = {name for name in named if f"`{name}`" not in page}
    assert not missing
    assert page.startswith("# ")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page)
    assert pictures
    assert all((WEB / "docs" / picture).is_file() for picture in pictures)
    assert "http://" not in page


@pytest.mark.parametrize("node", SCHEMAS)
def test_other_languages_get_the_english_page(node):
    """The page asks for <node>/<language>.md, then for <node>.md, and never for <node>/en.md in their place."""
    assert (WEB / "docs" / f"{node}.md").read_bytes() == (WEB / "docs" / node / "en.md").read_bytes()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", SCHEMAS)
def test_every_node_has_a_locale_entry(node, language):
    entry = locale(language, "nodeDefs")[node]
    assert set(SCHEMAS[node]) <= set(entry["inputs"])
    assert entry["display_name"]
    assert entry["description"]
    assert all(told.get("name") and told.get("tooltip") for told in entry["inputs"].values())
    assert all(told.get("name") for told in entry["outputs"].values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_page_or_entry_is_of_a_node_that_is_gone(language):
    assert set(locale(language, "nodeDefs")) == set(SCHEMAS)
    assert {page.parent.name for page in WEB.glob(f"docs/*/{language}.md")} == set(SCHEMAS)


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_languages_tell_of_the_same_things(language):
    assert shape(locale(language, "nodeDefs")) == shape(locale("en", "nodeDefs"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_has_a_letter_that_the_page_reads_as_syntax(language):
    told = texts(locale(language, "nodeDefs"))
    assert not [text for text in told if re.search(r"[{}@|$]", text)]


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_the_panel_has_words_for_all_it_says(language):
    panel = "".join(script.read_text(encoding="utf-8") for script in SCRIPTS)
    said = {text for call in re.findall(r"say\(([^()]*)\)", panel) for text in re.findall(r'"([^"]+)"', call)}
    states = re.search(r"STATES = \{(.*?)\}", panel, re.DOTALL)
    assert states
    said |= set(re.findall(r'"([^"]+)"', states[1]))
    said -= {"stop", "cancel"}
    assert said == set(locale(language, "main")["danceopd"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_keep_to_this_server(script):
    text = script.read_text(encoding="utf-8")
    for wrong in (r"\beval\b", r"new Function", r"https?:", r"wss?:", r"innerHTML", r"""["'`]//""", r"document\.write"):
        assert not re.search(wrong, text), wrong
    imported = re.findall(r'from "([^"]+)"', text)
    assert all(name.startswith("./") or name in ("/scripts/api.js", "/scripts/app.js") for name in imported)


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no node to run JavaScript with")


@pytest.fixture
def as_modules(tmp_path: Path) -> Path:
    """The scripts where node takes them for modules, as the page does."""
    shutil.copytree(WEB, tmp_path / "web")
    shutil.copy(Path(__file__).parent / "panel_test.mjs", tmp_path / "web")
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    return tmp_path / "web"


@needs_node
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script, as_modules):
    told = subprocess.run(["node", "--check", as_modules / script.relative_to(WEB)], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr


@needs_node
def test_the_laws_of_the_panel(as_modules):
    told = subprocess.run(["node", "--test", "panel_test.mjs"], cwd=as_modules, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout
