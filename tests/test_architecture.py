"""The layers, read from the imports of the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

CORE = Path(__file__).parent.parent / "danceopd_core"
MODULES = sorted(CORE.rglob("*.py"))
# From the ground up; a module imports only what stands before it. What is not listed may import anything below run.
ORDER = ("errors", "names", "fields", "flow", "rollout", "query", "routing", "losses", "methods", "timing", "training")
PLUMBING = (
    "adapters", "lora_files", "lora_names", "full_checkpoints", "native_checkpoints", "safe_files", "checkpoint",
    "data", "metadata_rows", "omniedit", "backbones", "recipe",
)  # fmt: skip
METHOD_SIDE = ("rollout", "query", "losses", "methods", "training")
HEAVY = ("diffusers", "transformers", "peft", "accelerate", "matplotlib")


def imports(path: Path, top_only: bool = False) -> list[str]:
    """Imported module names; relative ones resolved against the package, as 'danceopd_core.x'."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ("danceopd_core", *path.relative_to(CORE).parts[:-1])
    found = []
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            whole = ".".join(part for part in (base, node.module or "") if part)
            found += [whole] if node.module else [f"{base}.{alias.name}" for alias in node.names]
    return found


def name(path: Path) -> str:
    return ".".join(path.relative_to(CORE).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_the_core_knows_no_comfy_and_imports_itself_relatively(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert not (node.module or "").startswith("danceopd_core")
    assert not any(found.split(".")[0] in ("comfy", "nodes", "folder_paths", "server") for found in imports(path))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_module_has_two_jobs(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_heavy_libraries_are_imported_when_they_are_needed(path):
    assert not {found.split(".")[0] for found in imports(path, top_only=True)} & set(HEAVY)


@pytest.mark.parametrize("number", range(len(ORDER)), ids=ORDER)
def test_imports_point_down(number):
    own = {found.split(".")[1] for found in imports(CORE / f"{ORDER[number]}.py") if found.startswith("danceopd_core.")}
    assert own <= set(ORDER[:number]), f"{ORDER[number]} imports {own - set(ORDER[:number])}"


@pytest.mark.parametrize("path", [p for p in MODULES if name(p).split(".")[0] in PLUMBING], ids=name)
def test_plumbing_never_sees_a_method(path):
    top = {found.split(".")[1] for found in imports(path, top_only=True) if found.startswith("danceopd_core.")}
    assert not top & set(METHOD_SIDE)


def test_no_pickle_is_ever_read():
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert "torch.load(" not in text
        assert "pickle" not in {found.split(".")[0] for found in imports(path)}
