"""What `model` and `components` of a recipe may name: a folder, files, or a Hugging Face id, which is no path."""

import json
import shutil
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch

from danceopd_core.cli.parser import main
from danceopd_core.errors import InputError
from danceopd_core.models import hub
from danceopd_core.models.hub import fetched, is_hub_id
from danceopd_core.recipe.io import checked, parse_recipe, read_recipe
from danceopd_core.runs.plans.opening import open_model
from danceopd_core.runs.plans.preflight import preflight
from danceopd_core.runs.plans.sources import FolderSource


@pytest.mark.parametrize(
    ("name", "is_id"),
    [
        ("Tongyi-MAI/Z-Image-Turbo", True),
        ("stabilityai/stable-diffusion-3.5-medium", True),
        ("shapes", False),
        ("a/b/c", False),
        ("/a/b", False),
        ("./a/b", False),
        ("~/b", False),
        ("../b", False),
        ("a\\b", False),
        ("C:/b", False),
        ("a/", False),
        ("here/b", False),
        ("here/there", False),
        ("near/b", False),
        ("Tongyi-MAI/Z-Image-Turbo@main", True),
        ("stabilityai/stable-diffusion-3.5-medium@refs/pr/7", True),
        ("a/b@0123abc", True),
        ("a/b@", False),
        ("a/b@../c", False),
        ("a/b@c@d", False),
        ("near/b@main", False),
    ],
)
def test_an_id_is_no_path(name, is_id, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "there").mkdir(parents=True)
    (tmp_path / "recipes" / "near").mkdir(parents=True)
    assert is_hub_id(name, "recipes") == is_id


class Told(list[str]):
    """The files that were asked for, and of which revisions."""

    def __init__(self):
        super().__init__()
        self.revisions: list[str | None] = []


@pytest.fixture
def online(zimage_folder, monkeypatch, tmp_path):
    """A hub with one model: it copies what is asked for, and tells the files."""
    import huggingface_hub

    told = Told()

    def one(name, file, revision=None):
        told.revisions.append(revision)
        if name != "owner/tiny":
            raise huggingface_hub.errors.LocalEntryNotFoundError("no such model")
        return str(zimage_folder / file)

    def all_of(name, allow_patterns, ignore_patterns, revision=None):
        told.revisions.append(revision)
        for file in sorted(path for path in zimage_folder.rglob("*") if path.is_file()):
            inside = file.relative_to(zimage_folder).as_posix()
            if any(fnmatch(inside, pattern) for pattern in allow_patterns):
                told.append(inside)
                (tmp_path / "cache" / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, tmp_path / "cache" / inside)
        assert any(fnmatch("vae/diffusion_pytorch_model.fp16.safetensors", pattern) for pattern in ignore_patterns)
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", one)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", all_of)
    return told


def test_an_id_is_fetched_with_all_its_parts_and_nothing_else(online, opened_zimage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = open_model("owner/tiny", {}, torch.float32, "cpu")
    for name, tensor in opened_zimage.network.state_dict().items():
        assert found.network.state_dict()[name].equal(tensor)
    assert {file.split("/")[0] for file in online} == {
        "model_index.json", "transformer", "vae", "text_encoder", "tokenizer", "scheduler"
    }  # fmt: skip
    assert all(file.endswith((".json", ".txt", ".jinja", ".safetensors")) for file in online)


@pytest.mark.parametrize("revision", [None, "v1.0", "0123456789abcdef0123456789abcdef01234567"])
def test_an_id_may_name_a_revision(online, tmp_path, monkeypatch, revision):
    monkeypatch.chdir(tmp_path)
    name = f"owner/tiny@{revision}" if revision else "owner/tiny"
    assert fetched(name) == tmp_path / "cache"
    assert online.revisions == [revision] * 2
    recipe = parse_recipe(recipe_of(model=name))
    assert recipe.model == name
    assert checked(recipe).to_dict()["model"] == name


def test_a_run_notes_the_commit_that_an_id_stood_for(online, zimage_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert FolderSource("owner/tiny").notes() == []
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = shutil.copytree(zimage_folder, tmp_path / "snapshots" / commit)
    monkeypatch.setattr("danceopd_core.runs.plans.sources.fetched", lambda *given: snapshot)
    for name in ("owner/tiny", "owner/tiny@main"):
        assert FolderSource(name).notes() == [f"model: owner/tiny@{commit} is this very model"]
    assert FolderSource(str(snapshot)).notes() == []


def test_weights_that_come_from_files_are_not_fetched(online, zimage_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = next((zimage_folder / "transformer").glob("*.safetensors"))
    open_model("owner/tiny", {"transformer": str(weights)}, torch.float32, "cpu")
    assert [file for file in online if file.startswith("transformer/")] == ["transformer/config.json"]
    assert any(file.startswith("vae/") and file.endswith(".safetensors") for file in online)


def test_a_local_folder_is_never_looked_for_on_the_hub(zimage_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "fetched", None)
    monkeypatch.setattr("danceopd_core.runs.plans.sources.fetched", None)
    shutil.copytree(zimage_folder, tmp_path / "models" / "tiny")
    monkeypatch.chdir(tmp_path)
    open_model("models/tiny", {}, torch.float32, "cpu")
    with pytest.raises(InputError, match=r"models/other is not a diffusers model folder"):
        open_model("models/other", {}, torch.float32, "cpu")


def test_without_a_connection_an_id_is_one_message(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"no folder owner/gone here, and .* cannot be downloaded from Hugging Face"):
        fetched("owner/gone")


def recipe_of(**changes) -> dict:
    route = {"name": "r", "teacher": "base", "bucket": {"prompts": ["a cat"]}}
    return {"teachers": {"base": {}}, "routes": [route], **changes}


def test_a_recipe_keeps_ids_and_makes_files_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vae.safetensors").touch()
    (tmp_path / "r.yaml").write_text(
        json.dumps(recipe_of(model="owner/tiny", components={"vae": "vae.safetensors"})), encoding="utf-8"
    )
    recipe = read_recipe(tmp_path / "r.yaml")
    assert recipe.model == "owner/tiny"
    assert recipe.components == {"vae": str(tmp_path / "vae.safetensors")}
    other = replace(recipe, components={})
    assert len({recipe.digest(), other.digest()}) == 2
    (tmp_path / "owner").mkdir()
    assert read_recipe(tmp_path / "r.yaml").model == str(tmp_path / "owner" / "tiny")


def test_components_are_checked_before_a_model_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"components\.vea: .*'vea' \(did you mean 'vae'\?\)"):
        parse_recipe(recipe_of(model="owner/tiny", components={"vea": "a"}))
    missing = parse_recipe(recipe_of(model="owner/tiny", components={"vae": str(tmp_path / "no.safetensors")}))
    with pytest.raises(InputError, match=r"a fault:\n  components\.vae: .*no\.safetensors does not exist"):
        preflight(missing)
    preflight(replace(missing, components={}))  # an id is not asked for before the run begins
    assert not list(Path().rglob("*cache*"))


def test_the_sample_command_takes_files(zimage_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    weights = next((zimage_folder / "transformer").glob("*.safetensors"))
    common = ["sample", "a cat", "--model", str(zimage_folder), "--width", "32", "--height", "32", "--steps", "2"]
    common += ["--device", "cpu"]
    assert main([*common, "--out", "one.png"]) == 0
    assert main([*common, "--out", "two.png", "--component", f"transformer={weights}"]) == 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    for word, told in (("vea=x", "did you mean 'vae'"), ("vae=none.safetensors", "does not exist")):
        assert main([*common, "--component", word]) == 2
        assert told in capsys.readouterr().err
