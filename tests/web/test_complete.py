"""Checks help pages, locales and scripts without a server; the schemas are read from source."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from danceopd_core.doctor.health import health_of
from danceopd_core.doctor.spectrum import LayerSpectrum

from .texts import node_schemas

ROOT = Path(__file__).parent.parent.parent
WEB = ROOT / "web"
LANGUAGES = ("en", "zh", "ja")
SCRIPTS = sorted(WEB.rglob("*.js"))


NODES = node_schemas.read_nodes()
SCHEMAS = {node.node_id: {socket.key for socket in node.inputs} for node in NODES}
"""The keys of a node's inputs as in nodeDefs.json, by node id."""


def locale(language: str, file: str) -> dict:
    return json.loads((ROOT / "locales" / language / f"{file}.json").read_text(encoding="utf-8"))


def all_texts(tree: object) -> list[str]:
    if isinstance(tree, dict):
        return [text for inner in tree.values() for text in all_texts(inner)]
    return [str(tree)]


def shape(tree: object) -> object:
    return {key: shape(inner) for key, inner in tree.items()} if isinstance(tree, dict) else None


def test_there_are_nodes():
    assert "DanceOPD_Train" in SCHEMAS
    assert "name" in SCHEMAS["DanceOPD_Train"]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", SCHEMAS)
def test_every_node_has_a_help_page_that_describes_each_input(node, language):
    page = (WEB / "docs" / node / f"{language}.md").read_text(encoding="utf-8")
    inputs = {re.sub("^(content|routes)_", "", name) for name in SCHEMAS[node] - {node_schemas.CONTROL}}
    missing = {name for name in inputs if f"`{re.sub('[2-8]$', '1', name)}`" not in page}
    assert not missing
    assert page.startswith("# ")
    images = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page)
    assert images
    assert all((WEB / "docs" / image).is_file() for image in images)
    assert "http://" not in page


@pytest.mark.parametrize("node", SCHEMAS)
def test_other_languages_get_the_english_page(node):
    """ComfyUI requests <node>/<language>.md, then <node>.md, and never <node>/en.md in their place."""
    assert (WEB / "docs" / f"{node}.md").read_bytes() == (WEB / "docs" / node / "en.md").read_bytes()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", SCHEMAS)
def test_every_node_has_a_locale_entry(node, language):
    entry = locale(language, "nodeDefs")[node]
    assert set(SCHEMAS[node]) <= set(entry["inputs"])
    assert entry["display_name"]
    assert entry["description"]
    assert all(texts.get("name") and texts.get("tooltip") for texts in entry["inputs"].values())
    assert all(texts.get("name") and texts.get("tooltip") for texts in entry["outputs"].values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_page_or_entry_is_of_a_node_that_is_gone(language):
    assert set(locale(language, "nodeDefs")) == set(SCHEMAS)
    assert {page.parent.name for page in WEB.glob(f"docs/*/{language}.md")} == set(SCHEMAS)


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_translations_have_the_entries_of_english(language):
    assert shape(locale(language, "nodeDefs")) == shape(locale("en", "nodeDefs"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_has_a_character_that_vue_i18n_reads_as_syntax(language):
    texts = all_texts(locale(language, "nodeDefs"))
    assert not [text for text in texts if re.search(r"[{}@|$]", text)]


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_every_text_of_the_panel_is_translated_and_no_other(language):
    panel = "".join(script.read_text(encoding="utf-8") for script in SCRIPTS)
    calls = re.findall(r"(?<![\w.])t\(([^()]*)\)", panel)
    texts = {text for call in calls for text in re.findall(r'"([^"]+)"', call)}
    states = re.search(r"STATES = \{(.*?)\}", panel, re.DOTALL)
    assert states
    texts |= set(re.findall(r'"([^"]+)"', states[1]))
    texts -= {"stop", "cancel"}  # compared with in the calls
    assert texts == set(locale(language, "main")["danceopd"])


TELLING = ("log", "tell", "_tell", "work", "on_not_saved")
"""What the core calls with a sentence of progress."""
BUILT = {
    "Nothing was trained", "Nothing was trained: {} in the loras folder is as it was",
    "This run is finished already: nothing was trained.",
    "the student is further from its teachers than at the start: lower the learning rate",
    "the learned router is correct on {} of {} held-out prompts ({}); {}", "memory: {} at the peak, {} free: {}",
    "memory: not estimated ({}); gradient checkpointing is {}",
    "{}, about {} here", "{}; time is known after the first updates", "about {} here",
    "memory and time are known after the first updates",
    "the training needs about {} beside the MODEL's {}: {} for gradients and moments, {} for activations",
    "broken: it has no layers", "broken: {} of {} layers hold{} NaN or infinity ({})",
    "dead: its {} layers change nothing (their product is zero), so no picture changes with it",
    "healthy: {} layers of rank {}, each spread over {} directions",
    "doubtful: {} layers of rank {}, each spread over {} directions",
    "{} of {} layers change{} nothing ({})", "{} of {} layers change{} nothing ({}), as is usual",
    "in {} one direction carries the layer and is more than {} times as strong as the others' strongest: stacked with "
    "other LoRAs this one may spoil pictures; a lower learning rate or fewer updates help",
}  # fmt: skip
"""Sentences that are made elsewhere than in these calls."""


def template(node: ast.AST) -> str | None:
    """A text of the source with {} for its values."""
    if isinstance(node, ast.NamedExpr):
        return template(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def told() -> set[str]:
    folders = [ROOT / "danceopd_core" / name for name in ("algorithm", "models", "data", "runs")]
    found = set(BUILT)
    for path in (path for folder in [*folders, ROOT / "nodes"] for path in folder.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and call.args:
                name = getattr(call.func, "attr", getattr(call.func, "id", ""))
                given = call.args[0]
                parts = [given.body, given.orelse] if isinstance(given, ast.IfExp) else [given]
                found |= {text for part in parts if name in TELLING and (text := template(part))}
    return found


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_every_sentence_of_progress_is_translated_with_its_values(language):
    sentences = locale(language, "main")["danceopdSentences"]
    assert {re.sub(r"\{\w+\}", "{}", english) for english in sentences} == told()
    for english, translation in sentences.items():
        names = set(re.findall(r"\{(\w+)\}", english))
        assert set(re.findall(r"\{(\w+)\}", translation)) == names - {"plural"}


def layers(names: str, *values: float) -> list[LayerSpectrum]:
    return [LayerSpectrum(name, 4, values) for name in names]


ALIVE = layers("ghijklmnopqrstuvwxyz", 1.0, 1.0, 0.5, 0.1)
VERDICTS = [
    health_of(found).verdict()
    for found in (
        [], ALIVE, layers("a"), layers("ab"), layers("abc", 0, 0, 0, 0), [*ALIVE, *layers("a", 0, 0, 0, 0)],
        [*ALIVE, *layers("ab", 0, 0, 0, 0)], [*ALIVE, *layers("abcdef", 0, 0, 0, 0)],
        [*ALIVE, *layers("a", 20, 1, 1, 1)],
    )
]  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_every_sentence_of_a_verdict_is_translated(language):
    def pattern(english):
        parts = re.split(r"\{(\w+)\}", english)
        texts = (re.escape(part) if i % 2 == 0 else "s?" if part == "plural" else ".+?" for i, part in enumerate(parts))
        return "".join(texts)

    known = [pattern(english) for english in locale(language, "main")["danceopdSentences"]]
    told = {sentence for verdict in VERDICTS for sentence in verdict.split(". ")}
    assert [sentence for sentence in told if not any(re.fullmatch(one, sentence) for one in known)] == []
    assert len(told) == 13


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_every_line_and_title_of_a_template_is_translated_and_no_other(language):
    texts = set()
    for file in (ROOT / "workflows").glob("*.json"):
        page = json.loads(file.read_text(encoding="utf-8"))
        texts |= {titled["title"] for titled in (*page["nodes"], *page["groups"]) if "title" in titled}
        notes = [node["widgets_values"][0] for node in page["nodes"] if node["type"] in ("MarkdownNote", "Note")]
        texts |= {line for note in notes for line in note.split("\n") if line.strip()}
    translations = locale(language, "main")["danceopdTemplates"]
    assert texts == set(translations)
    for english, translation in translations.items():  # what is typed or pressed is the same everywhere
        assert re.findall(r"[\w./-]+\.(?:safetensors|csv)", english) == re.findall(
            r"[\w./-]+\.(?:safetensors|csv)", translation
        )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_keep_to_this_server(script):
    text = script.read_text(encoding="utf-8")
    wrongs = r"\beval\b", r"new Function", r"https?:", r"\bwss?:", r"innerHTML", r"""["'`]//""", r"document\.write"
    for wrong in wrongs:
        assert not re.search(wrong, text), wrong
    imported = re.findall(r'from "([^"]+)"', text)
    assert all(name.startswith("./") or name in ("/scripts/api.js", "/scripts/app.js") for name in imported)


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


@pytest.fixture
def as_modules(tmp_path: Path) -> Path:
    """A copy of the scripts that Node.js loads as modules, as the page does."""
    shutil.copytree(WEB, tmp_path / "web")
    for tests in Path(__file__).parent.glob("*.mjs"):
        shutil.copy(tests, tmp_path / "web")
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    return tmp_path / "web"


@needs_node
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script, as_modules):
    result = subprocess.run(["node", "--check", as_modules / script.relative_to(WEB)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@needs_node
@pytest.mark.parametrize("tests", ["panel_test.mjs", "results_test.mjs"])
def test_the_laws_of_the_panel(as_modules, tests):
    result = subprocess.run(["node", "--test", tests], cwd=as_modules, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
