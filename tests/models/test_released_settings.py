"""The tables that validate model folders take the settings of every released one, and pass on what they mean."""

import inspect
import json
from pathlib import Path

import pytest

from danceopd_core.models import tokenizer_rules
from danceopd_core.models.agreement import disagreements
from danceopd_core.models.loading import class_of
from danceopd_core.models.part_files import CONFIG_FILES, part_settings
from danceopd_core.models.part_rules import CONFIGS, PARTS
from danceopd_core.models.registry import FAMILIES, empty_module_of, family_of
from danceopd_core.models.rules import faults
from danceopd_core.models.weight_bounds import transformers_config

from ..versions import needs_diffusers, needs_pipeline

RELEASED = json.loads(Path(__file__).with_name("released.json").read_text(encoding="utf-8"))
FOLDERS = RELEASED["folders"]
WITHOUT_EFFECT = {
    "_name_or_path", "architectures", "decoder_start_token_id", "dropout", "dtype", "image_token_id", "output_past",
    "spatial_patch_size", "torch_dtype", "transformers_version", "use_cache", "video_token_id", "vision_end_token_id",
    "vision_start_token_id", "vision_token_id", "_attn_implementation_autoset", "is_encoder_decoder",
}  # fmt: skip
"""Settings that change nothing about how a text is encoded; tokens are among the `VALUES`."""
VALUES = {"image_token_id": 151655, "vision_start_token_id": 151652}
"""Which the position ids of Qwen2.5-VL need, of the whole model's configuration."""


def parts(folder: str):
    """Every part of a released folder with its class and settings, but for tokenizers."""
    index, *_ = FOLDERS[folder].values()
    classes = next(parts for parts in PARTS.values() if index["transformer"] == ["diffusers", parts["transformer"]])
    for part, config in FOLDERS[folder].items():
        if part != "model_index":
            yield part, classes[part], RELEASED["configs"][config]


def saved(root: Path, folder: str) -> Path:
    (root / "model_index.json").write_text(json.dumps(FOLDERS[folder]["model_index"]))
    for part, name, config in parts(folder):
        (root / part).mkdir()
        (root / part / CONFIG_FILES.get(name, "config.json")).write_text(json.dumps(config))
    return root


def folders(*names: str) -> list:
    """Parameters of released folders; those of pipelines that a later diffusers has are skipped without it."""
    return [pytest.param(name, marks=needs_pipeline(FOLDERS[name]["model_index"]["_class_name"])) for name in names]


@pytest.mark.parametrize("folder", folders(*FOLDERS))
def test_released_settings_are_taken(folder, tmp_path):
    root = saved(tmp_path, folder)
    assert family_of(root)[1] == FOLDERS[folder]["model_index"]
    for part, name, config in parts(folder):
        assert part_settings(root / part, name) == config


@pytest.mark.parametrize(
    "folder", folders("zimage", "sd35-medium", "flux-dev", "klein-base-4b", "qwen-edit-2511", "krea2-raw", "qwen21")
)
def test_released_parts_agree(folder, tmp_path):
    root = saved(tmp_path, folder)
    modules = {
        part: empty_module_of(root, part)
        for part in FOLDERS[folder]
        if part not in ("model_index", "scheduler", "processor")
    }
    if "processor" in FOLDERS[folder]:
        modules["processor"] = class_of("Qwen2VLImageProcessor").from_pretrained(root / "processor")
    assert list(disagreements({**modules, "index": FOLDERS[folder]["model_index"]})) == []


@pytest.mark.parametrize("folder", folders(*FOLDERS))
def test_what_is_passed_on_of_an_encoders_settings_is_all_that_counts(folder):
    for part, name, config in parts(folder):
        if part.startswith("text_encoder"):
            cls = class_of(name)
            ours = transformers_config(cls, config, CONFIGS[name])
            theirs = cls.config_class.from_dict(json.loads(json.dumps(config)))
            assert counting(ours.to_dict()) == counting(theirs.to_dict())
            if name.startswith("Qwen2_5"):
                assert {name: getattr(ours, name) for name in VALUES} == VALUES


def counting(value):
    if isinstance(value, dict):
        return {
            name: counting(inner) for name, inner in value.items() if name not in WITHOUT_EFFECT and inner is not None
        }
    return value


def needs_class(name: str):
    """For a test of a class in the tables that later releases have: a mark, or none."""
    releases = [FAMILIES[family].needs for family, parts in PARTS.items() if name in parts.values()]
    return () if "" in releases else needs_diffusers(min(releases))


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_class(name)) for name in CONFIGS])
def test_the_libraries_own_defaults_are_taken(name):
    cls = class_of(name)
    if hasattr(cls, "config_class"):
        whole = [cls.config_class().to_dict(), json.loads(cls.config_class().to_json_string())]
    elif name.endswith(("Processor", "Scheduler")):
        whole = [json.loads(cls().to_json_string())]
    else:
        given = inspect.signature(cls.__init__).parameters
        whole = [{name: one.default for name, one in given.items() if one.default is not one.empty}]
    for config in whole:
        told = list(faults(json.loads(json.dumps(config, default=str)), CONFIGS[name]))
        assert told in ([], ["shift_factor is null, expected a number from -1e+06 to 1e+06"]), told


@pytest.mark.parametrize("name", RELEASED["tokenizers"])
def test_released_tokenizers_are_taken(name, tmp_path):
    for number, config in enumerate(RELEASED["tokenizers"][name]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "vocab.json").write_text("{}")
        assert part_settings(folder, name) == config


def test_released_expressions_are_taken():
    for expression in RELEASED["expressions"]:
        content = {"model": {"vocab": {}}, "pre_tokenizer": {"pattern": {"Regex": expression}}}
        assert tokenizer_rules.fault(content) == ""
