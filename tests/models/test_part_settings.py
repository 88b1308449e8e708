"""Every setting of a model's parts is checked by its table, and against the weights, before memory is spent."""

import json
import random
from contextlib import suppress
from typing import Any

import pytest
import torch

from danceopd_core.errors import InputError
from danceopd_core.models import part_files
from danceopd_core.models.loading import ModelFolder, check_part
from danceopd_core.models.part_rules import CONFIGS
from danceopd_core.models.registry import open_backbone

from ..tiny_families import save_sd3
from .hostile import changed, folder, refusal, settings_files, sound

__all__ = ["folder", "sound"]


WRONG = ["text", "", [], [1, "a"], {}, None, float("nan"), float("inf"), -1, 0, 10**9, 10**40, 1.5, True, [[[]]]]


def test_every_setting_of_a_wrong_kind_is_one_sentence(folder):
    """Of each value that the tables refuse; what they take, the network still has to fit its weights."""
    for name, file in settings_files(folder):
        if name not in CONFIGS:
            continue
        kept = json.loads(file.read_text())
        for setting, rule in CONFIGS[name].items():
            refused = [value for value in WRONG if not rule.fits(value)]
            assert refused or rule.settings is not None, (name, setting)
            for value in refused:
                changed(file, **{setting: value})
                with pytest.raises(InputError) as caught:
                    part_files.part_settings(file.parent, name)
                assert str(file) in str(caught.value)
                assert f"{setting} is " in str(caught.value)
                assert len(str(caught.value)) < 700
                file.write_text(json.dumps(kept))


def mutated(value: Any, random_: random.Random) -> Any:
    """The value with one part of it replaced."""
    if isinstance(value, dict) and value and random_.random() < 0.8:
        name = random_.choice(sorted(value))
        return {**value, name: mutated(value[name], random_)}
    if isinstance(value, list) and value and random_.random() < 0.6:
        place = random_.randrange(len(value))
        return [*value[:place], mutated(value[place], random_), *value[place + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and random_.random() < 0.4:
        return random_.choice([value + 1, value - 1, 2 * value, 2**17, 1000])
    return random_.choice(WRONG)


def test_random_changes_end_in_one_sentence_or_open(folder):
    """No traceback, and no more memory than the weights take."""
    generator = random.Random(folder.parent.parent.name)
    files = [file for _, file in settings_files(folder)] + [folder / "model_index.json"]
    for _ in range(25):
        file = generator.choice(files)
        kept = file.read_text()
        file.write_text(json.dumps(mutated(json.loads(kept), generator)))
        with suppress(InputError):
            open_backbone(folder)
        file.write_text(kept)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a": ' * 50_000, "[]", "3", "null", "", "\xff\xfe", '{"a": ' + "9" * 5000 + "}"]
)
def test_what_is_no_mapping_is_one_sentence_at_any_depth(folder, content):
    for _, file in [*settings_files(folder), ("", folder / "model_index.json")]:
        kept = file.read_text()
        file.write_text(content, encoding="latin-1")
        with pytest.raises(InputError, match=str(file)):
            part_files.read_settings(file)
        file.write_text(kept)


@pytest.mark.parametrize("setting", ["n_layers", "num_layers", "num_hidden_layers", "depth", "layers_per_block"])
@pytest.mark.parametrize("value", [700, 10**6])
def test_layers_that_the_weights_do_not_have_are_never_built(folder, setting, value, monkeypatch):
    def built(*given):
        raise AssertionError("a network is built")

    monkeypatch.setattr(torch.nn.ModuleList, "__init__", built)
    for name, file in settings_files(folder):
        if setting in CONFIGS.get(name, {}):
            changed(file, **{setting: value})
            with pytest.raises(InputError, match=f"{setting} is {value}"):
                check_part(ModelFolder(folder), file.parent.name, name)


def test_widths_that_the_weights_do_not_have_take_no_memory(folder):
    for name, file in settings_files(folder):
        for setting in ("vocab_size", "intermediate_size", "d_ff", "joint_attention_dim", "cap_feat_dim"):
            given = json.loads(file.read_text())
            if setting in CONFIGS.get(name, {}) and setting in given and "text_config" not in given:
                changed(file, **{setting: 2**18})
                with pytest.raises(InputError, match="does not hold all weights"):
                    check_part(ModelFolder(folder), file.parent.name, name)
                file.write_text(json.dumps(given))


def test_positions_are_not_computed_beyond_the_weights(tmp_path):
    folder = save_sd3(tmp_path / "model")
    changed(folder / "transformer" / "config.json", pos_embed_max_size=1024, attention_head_dim=2**18)
    assert "positions of" in refusal(folder)
