"""The layers, read from the imports of the source: those inside functions and under TYPE_CHECKING count too."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "danceopd_core"
ORDER = (
    "errors", "lookup", "files", "signals", "outside", "listening", "algorithm", "weights", "models", "shapes",
    "doctor", "recipe", "data", "runs", "evaluation", "research", "cli", "nodes",
)  # fmt: skip
"""From the ground up: what lies in a folder imports only from itself and from what stands before it."""
RUNS = ("files", "live", "plans", "encoded", "budget", "pictures", "training", "cards", "stored", "front")
"""The same for the packages of `runs`."""
RESEARCH_FREE = ("runs", "evaluation", "nodes")
FILES = sorted([*CORE.rglob("*.py"), *(ROOT / "nodes").rglob("*.py")])
HEAVY = ("diffusers", "transformers", "peft", "accelerate", "matplotlib", "scipy", "pandas", "pyarrow")
METHOD_FREE = {"danceopd_core.algorithm.fields", "danceopd_core.algorithm.flow", "danceopd_core.algorithm.relief"}
"""All that weights, models and data may import of the algorithm."""
MOST_LINES = 300


def name(path: Path) -> str:
    """ "danceopd_core.runs.training.session"; a package is called as its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name(path): path for path in FILES}


def imports(path: Path, top_only: bool = False) -> set[str]:
    """The modules that a file imports, anywhere in it; relative ones resolved, `from . import x` as the module x."""
    package = path.relative_to(ROOT).parts[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            inner = {f"{module}.{alias.name}" for alias in node.names}
            found |= inner & NAMES.keys() or {module}
            found |= {module} if not inner <= NAMES.keys() else set()
    return found


def folder(module: str) -> str:
    """Which entry of ORDER a module of the project belongs to."""
    first, *rest = module.split(".")
    return rest[0] if first == "danceopd_core" and rest else first


INSIDE = [path for path in FILES if folder(name(path)) in ORDER]


def own_imports(path: Path) -> set[str]:
    return {found for found in imports(path) if found.split(".")[0] in ("danceopd_core", "nodes")}


@pytest.mark.parametrize("path", INSIDE, ids=name)
def test_imports_point_to_earlier_folders(path):
    own = ORDER.index(folder(name(path)))
    later = {found for found in own_imports(path) if ORDER.index(folder(found)) > own}
    assert not later, f"{name(path)} imports {sorted(later)}, which {ORDER[own]} may not"


@pytest.mark.parametrize("path", [path for path in INSIDE if folder(name(path)) == "runs"], ids=name)
def test_imports_within_runs_point_to_earlier_packages(path):
    def package(module: str) -> int:
        return RUNS.index(module.split(".")[2])

    inner = {found for found in own_imports(path) if folder(found) == "runs"}
    if name(path) == "danceopd_core.runs":
        assert not inner
    else:
        assert not {found for found in inner if package(found) > package(name(path))}


def test_every_module_lies_in_a_folder_of_the_order():
    loose = {name(path) for path in FILES if path not in INSIDE}
    assert loose <= {"danceopd_core", "danceopd_core.__main__"}


def test_no_module_imports_itself_in_a_circle():
    edges = {name(path): own_imports(path) & NAMES.keys() - {name(path)} for path in FILES}
    state: dict[str, int] = defaultdict(int)  # 1: on the path, 2: done

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert state[module] != 1, " -> ".join((*way[way.index(module) :], module))
        if state[module] == 2:
            return
        state[module] = 1
        for below in sorted(edges[module]):
            visit(below, (*way, module))
        state[module] = 2

    for module in edges:
        visit(module, ())


def test_what_the_registry_installs_runs_without_research():
    """Only the command line reaches for it, inside the commands that need it."""
    for path in INSIDE:
        if folder(name(path)) in RESEARCH_FREE:
            assert not any(folder(found) == "research" for found in own_imports(path)), name(path)
        elif folder(name(path)) == "cli":
            top = {found for found in imports(path, top_only=True) if found.startswith("danceopd_core.")}
            assert not any(folder(found) == "research" for found in top), name(path)


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=name)
def test_the_core_knows_no_comfy_and_imports_itself_relatively(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert not (node.module or "").startswith("danceopd_core")
    assert not any(found.split(".")[0] in ("comfy", "nodes", "folder_paths", "server") for found in imports(path))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_module_has_two_jobs(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=name)
def test_heavy_libraries_are_imported_when_they_are_needed(path):
    assert not {found.split(".")[0] for found in imports(path, top_only=True)} & set(HEAVY)


@pytest.mark.parametrize("path", [p for p in INSIDE if folder(name(p)) in ("weights", "models", "data")], ids=name)
def test_weights_models_and_data_never_see_a_method(path):
    assert {found for found in imports(path) if found.startswith("danceopd_core.algorithm")} <= METHOD_FREE


def test_no_public_class_is_defined_twice():
    places = defaultdict(list)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name(path))
    assert not {cls: where for cls, where in places.items() if len(where) > 1}


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=name)
def test_every_folder_says_what_lives_there(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_no_pickle_is_ever_read():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert "torch.load(" not in text
        assert "pickle" not in {found.split(".")[0] for found in imports(path)}


OPENERS = {
    "safe_open(": {"danceopd_core.weights.safetensors_io"},
    "Image.open(": {"danceopd_core.data.images"},
    "torch.load(": set(),
    ".from_pretrained(": {
        "danceopd_core.models.loading", "danceopd_core.models.single_files", "nodes.native.shapes_clip",
    },
}  # fmt: skip
"""Calls that open files which others made, with the modules that check them first."""


def test_files_of_others_are_opened_where_they_are_checked():
    for path in INSIDE:
        text = path.read_text(encoding="utf-8")
        if folder(name(path)) == "research":
            continue
        calls = {ast.unparse(node.func) + "(" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)}
        made = {call for call in OPENERS if any(found.endswith(call) for found in calls)}
        for call in made:
            assert name(path) in OPENERS[call], f"{name(path)} calls {call}"
        if ".from_pretrained(" in made:
            assert '"trust_remote_code": False' in text or "trust_remote_code=False" in text
        assert "trust_remote_code=True" not in text
