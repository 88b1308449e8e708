"""What the routes make of a run's folder before they touch it; without a server and without ComfyUI."""

from __future__ import annotations

import asyncio
import importlib
import sys
import types
from unittest import mock

import pytest

from .conftest import ROOT

pytest.importorskip("aiohttp")


@pytest.fixture
def part(monkeypatch, tmp_path):
    """A module of the nodes, whose border to ComfyUI gives `tmp_path` as the output folder."""
    pack = types.ModuleType("folders_pack")
    pack.__path__ = [str(ROOT)]
    border = mock.MagicMock(output_folder=lambda: tmp_path)
    with mock.patch.dict(sys.modules, {"folders_pack": pack, "folders_pack.nodes._comfy": border}):
        yield lambda name: importlib.import_module(f"folders_pack.nodes.{name}")


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "danceopd" / "run"
    (folder / "pictures").mkdir(parents=True)
    (folder / "identity.json").write_text("{}")
    (folder / "pictures" / "a.png").write_bytes(b"x")
    return folder


@pytest.mark.parametrize(("method", "status"), [("POST", 409), ("GET", 404)])
def test_a_run_folder_that_is_a_link_is_only_read(part, run, tmp_path, method, status):
    answers, refusal = part("answers"), part("requests").Refusal
    request = types.SimpleNamespace(method=method, match_info={"run": "run"})
    assert asyncio.run(answers.run_of(request, own=True)).name == "run"
    run.rename(tmp_path / "moved")
    run.symlink_to(tmp_path / "moved")
    assert asyncio.run(answers.run_of(request)).name == "run"
    with pytest.raises(refusal, match="is a link") as refused:
        asyncio.run(answers.run_of(request, own=True))
    assert refused.value.status == status


def test_no_picture_is_given_from_a_folder_that_is_a_link(part, run, tmp_path):
    routes = part("routes_http")
    record = types.SimpleNamespace(path=run)
    assert routes._picture(record, "a.png") == run / "pictures" / "a.png"
    (run / "pictures").rename(tmp_path / "photos")
    (run / "pictures").symlink_to(tmp_path / "photos")
    assert routes._picture(record, "a.png") is None


@pytest.mark.parametrize("name", ["evil.app", "evil.APP", "a.workflow", "run.2", "v0.5"])
def test_macos_shows_where_a_folder_lies_and_starts_no_bundle(part, tmp_path, monkeypatch, name):
    manager, started = part("file_manager"), []
    monkeypatch.setattr(manager, "os", types.SimpleNamespace(name="posix", environ={}))
    monkeypatch.setattr(manager, "sys", types.SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(manager.shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(manager.subprocess, "Popen", lambda command, **_: started.append(command) or mock.MagicMock())
    if name in ("run.2", "v0.5"):
        manager.open_folder(tmp_path / name)
        assert started == [["/usr/bin/open", "-R", str(tmp_path / name)]]
    else:
        with pytest.raises(manager.InputError, match="is not opened"):
            manager.open_folder(tmp_path / name)
        assert not started
