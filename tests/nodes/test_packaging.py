"""The files that ComfyUI, its manager and its registry read."""

import ast
import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_requirements_are_those_of_the_project_without_torch(project):
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert listed == [need for need in project["project"]["dependencies"] if not re.match(r"torch\b", need)]
    assert not any(line.startswith(("torch", "torchvision", "torchaudio", "-")) for line in listed)
    assert all(">=" in line and "==" not in line for line in listed), "floors, never pins"


def test_the_registry_finds_its_metadata(project):
    comfy = project["tool"]["comfy"]
    assert comfy["PublisherId"]
    assert comfy["DisplayName"]
    assert comfy["requires-comfyui"].startswith(">=")
    assert "web" not in comfy, "with WEB_DIRECTORY beside it every script would load twice"
    assert "comfyui" not in project["project"]["name"].lower()


def test_tests_and_development_files_stay_out_of_the_archive():
    ignored = (ROOT / ".comfyignore").read_text(encoding="utf-8").split()
    assert {"tests/", ".ci/", ".github/"} <= set(ignored)
    assert not {"nodes/", "web/", "danceopd_core/", "locales/", "workflows/"} & set(ignored)


def test_only_the_border_imports_comfyui():
    for path in (ROOT / "nodes").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            tops = {name.split(".")[0] for name in names}
            if path.name != "_comfy.py":
                foreign = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "server", "nodes", "execution"}
                assert not tops & foreign, path.name
            assert "danceopd_core" not in tops, f"{path.name}: the pack's own copy is imported relatively"
