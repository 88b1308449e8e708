"""A folder opens whole, or says what is wrong with it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from danceopd_core.errors import InputError
from danceopd_core.models.registry import open_backbone


@pytest.fixture
def folder(zimage_folder, tmp_path):
    return shutil.copytree(zimage_folder, tmp_path / "model")


def test_what_is_no_diffusers_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no model_index.json"):
        open_backbone(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_an_unreadable_index_is_refused(tmp_path, text):
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(InputError, match=r"model_index.json"):
        open_backbone(tmp_path)


def test_an_unknown_pipeline_is_refused_with_the_table(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "CogViewPipeline"}))
    with pytest.raises(InputError, match=r"CogViewPipeline.*zimage: ZImagePipeline"):
        open_backbone(tmp_path)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(folder, part):
    shutil.rmtree(folder / part)
    with pytest.raises(InputError, match=part):
        open_backbone(folder)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_a_missing_weight_is_no_random_weight(folder, part):
    file = next((folder / part).glob("*.safetensors"))
    weights = load_file(file)
    removed = sorted(weights)[0]
    del weights[removed]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=part):
        open_backbone(folder)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_a_misshapen_weight_is_refused(folder, part):
    file = next((folder / part).glob("*.safetensors"))
    weights = load_file(file)
    weights[sorted(weights)[0]] = torch.zeros(3, 5)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=part):
        open_backbone(folder)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_a_truncated_weight_file_is_refused(folder, part):
    file = next((folder / part).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=part):
        open_backbone(folder)


@pytest.mark.parametrize(
    ("part", "file", "found"),
    [
        ("scheduler", "scheduler_config.json", "DDIMScheduler"),
        ("transformer", "config.json", "FluxTransformer2DModel"),
        ("vae", "config.json", "AutoencoderTiny"),
    ],
)
def test_a_part_of_another_class_is_refused(folder, part, file, found):
    config = json.loads((folder / part / file).read_text())
    (folder / part / file).write_text(json.dumps({**config, "_class_name": found}))
    with pytest.raises(InputError, match=rf"{part}.{file} is of a {found}, and a {config['_class_name']} is needed"):
        open_backbone(folder)
