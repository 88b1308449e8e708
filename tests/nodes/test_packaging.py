"""The files that ComfyUI, its manager and its registry read."""

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent.parent
REPOSITORY = "https://github.com/danceopd/ComfyUI-DanceOPD"


@pytest.fixture
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_requirements_are_those_of_the_project_without_torch(project):
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert listed == [need for need in project["project"]["dependencies"] if not re.match(r"torch\b", need)]
    assert not any(line.startswith(("torch", "torchvision", "torchaudio", "-")) for line in listed)
    assert all(">=" in line and "==" not in line for line in listed), "floors, never pins"


def test_the_lowest_resolution_that_is_tested_is_the_floors(project):
    lines = (ROOT / ".ci" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    needs = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["bench"]]
    assert [line for line in lines if not line.startswith("#")] == [need.replace(">=", "==") for need in needs]


def test_a_job_runs_on_the_oldest_comfyui_that_the_registry_is_told(project):
    jobs = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))["jobs"]
    floor = project["tool"]["comfy"]["requires-comfyui"].removeprefix(">=")
    assert jobs["comfyui"]["strategy"]["matrix"]["comfyui"][0] == f"v{floor}"
    assert jobs["comfyui"]["env"]["DANCEOPD_REQUIRE_COMFYUI"] == "1"


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_what_github_reads_is_yaml(path):
    assert yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the release runs on a later Python")
def test_a_releases_notes_are_its_section_of_the_changelog():
    told = runpy.run_path(str(ROOT / ".github" / "release_notes.py"))["notes"]
    changelog = (
        "# Changelog\n\n## [0.2.0] - 2026-01-01\n\n### Added\n\n- It.\n\n## [0.1.0]\n\nThe first.\n\n[0.1.0]: x\n"
    )
    assert told("v0.2.0", changelog, "0.2.0") == "### Added\n\n- It.\n"
    assert told("v0.1.0", changelog, "0.1.0") == "The first.\n"
    for tag, version in (("v0.3.0", "0.3.0"), ("v0.2.0", "0.1.0")):
        with pytest.raises(SystemExit, match=r"0\.[23]\.0"):
            told(tag, changelog, version)


def test_the_registry_finds_its_metadata(project):
    comfy = project["tool"]["comfy"]
    assert comfy["PublisherId"]
    assert comfy["DisplayName"]
    assert comfy["requires-comfyui"].startswith(">=")
    assert project["project"]["urls"]["Repository"] == REPOSITORY
    # The registry shows a picture at a URL, at most 400 x 400.
    assert comfy["Icon"] == f"{REPOSITORY.replace('//github.com', '//raw.githubusercontent.com')}/main/assets/icon.svg"
    assert 'viewBox="0 0 400 400"' in (ROOT / "assets" / "icon.svg").read_text(encoding="utf-8")
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
