"""A model folder from a stranger runs nothing, hangs on nothing, and is refused in one sentence."""

import builtins
import json
import os
import shutil
import sys

import pytest
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3Model

from danceopd_core.errors import InputError
from danceopd_core.models.loading import ModelFolder, check_part, part_folder
from danceopd_core.models.registry import folder_faults, open_backbone

from ..tiny import save_zimage
from ..tiny_families import save_flux, save_qwen
from .hostile import changed, folder, refusal, settings_files, sound
from .test_qwen import PLUS

__all__ = ["folder", "sound"]


@pytest.fixture(autouse=True)
def _nobody_is_asked(monkeypatch):
    """transformers asks on stdin whether to run code, and would wait for ever in a server."""

    def asked(*text):
        raise AssertionError(f"asked: {text}")

    monkeypatch.setattr(builtins, "input", asked)


def test_a_sound_folder_has_no_faults(sound):
    assert list(folder_faults(sound)) == []


MAPS = {name: f"evil.{name}" for name in (
    "AutoTokenizer", "AutoModel", "AutoConfig", "AutoModelForCausalLM", "AutoImageProcessor", "AutoProcessor",
)}  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"auto_map": MAPS},
        {"auto_map": {**MAPS, "AutoTokenizer": ["evil.AutoTokenizer", None]}, "trust_remote_code": True},
        {"attn_implementation": "somebody/kernel"},
        {"_attn_implementation": "kernels-community/flash-attn"},
        {"nested": [{"_attn_implementation_internal": "somebody/kernel:run"}]},
        {"use_kernels": True},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    ],
    ids=["map", "trust", "attention", "community", "nested", "kernels", "quantised"],
)
def test_no_file_of_a_folder_runs_code(folder, tmp_path, settings):
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'w').close()\n" + "".join(f"class {name}: pass\n" for name in MAPS)
    files = list(settings_files(folder))
    for _, file in files:
        (file.parent / "evil.py").write_text(code)
    (folder / "evil.py").write_text(code)
    for name, file in files:
        kept = file.read_text()
        changed(file, **settings)
        with pytest.raises(InputError, match=r"code or kernels|quantised") as caught:
            check_part(ModelFolder(folder), file.parent.name, name)
        assert str(file) in str(caught.value)
        file.write_text(kept)
    for _, file in files:
        changed(file, **settings)
    assert str(files[0][1]) in refusal(folder)
    assert not marker.exists()
    assert not {name for name in sys.modules if name.endswith("evil")}


def test_code_beside_the_weights_is_no_matter_where_nothing_names_it(folder, tmp_path):
    marker = tmp_path / "ran"
    for part in ("tokenizer", "text_encoder", "transformer", "custom_generate"):
        place = part_folder(folder, part)
        place.mkdir(exist_ok=True)
        for name in ("modeling.py", "__init__.py", "generate.py", "sitecustomize.py"):
            (place / name).write_text(f"open({str(marker)!r}, 'w').close()")
    (folder / "text_encoder" / "custom_generate").mkdir()
    (folder / "text_encoder" / "custom_generate" / "generate.py").write_text(f"open({str(marker)!r}, 'w').close()")
    open_backbone(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("part", "named", "told"),
    [
        ("transformer", ["evil", "Network"], "is of evil"),
        ("tokenizer", ["os", "system"], "is of os"),
        ("vae", "AutoencoderKL", ""),
        ("text_encoder", ["transformers", 3], "does not name a library and a class"),
        ("extra", ["danceopd_core", "x"], "is of danceopd_core"),
    ],
)
def test_an_index_names_only_the_two_libraries(folder, part, named, told):
    changed(folder / "model_index.json", **{part: named})
    if told:
        with pytest.raises(InputError, match=told):
            open_backbone(folder)
    else:
        open_backbone(folder)  # a setting; the part is opened by its family


def test_the_template_of_a_chat_is_not_run(folder):
    for file in folder.rglob("chat_template.jinja"):
        file.write_text("{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}")
    open_backbone(folder).encode(["a cat"])


def test_an_adapter_beside_an_encoder_is_not_followed(folder):
    (folder / "text_encoder" / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/else"}')
    assert "adapter" in refusal(folder)


def test_a_class_that_the_family_does_not_have_is_refused(folder):
    for name, file in settings_files(folder):
        if "Tokenizer" in name:
            kept = file.read_text()
            changed(file, tokenizer_class="BertTokenizer")
            assert "tokenizer_class is 'BertTokenizer'" in refusal(folder)
            file.write_text(kept)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_nothing_waits_for_a_fifo(folder):
    for name, settings in settings_files(folder):
        for file in [*settings.parent.iterdir(), settings.parent / "merges.txt", settings.parent / "added.model"]:
            beside = folder / "kept"
            if file.exists():
                file.rename(beside)
            os.mkfifo(file)
            with pytest.raises(InputError, match=f"{file} is not a regular file"):
                check_part(ModelFolder(folder), settings.parent.name, name)
            file.unlink()
            if beside.exists():
                beside.rename(file)
    index = folder / "model_index.json"
    index.unlink()
    os.mkfifo(index)
    with pytest.raises(InputError, match="is not a regular file"):
        open_backbone(folder)


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin", 3, None, "\0"])
def test_an_index_of_shards_names_files_beside_it(folder, shard):
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, folder / "outside.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(weights), shard)}
    (folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert "no index of shards" in refusal(folder)


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**40, 2**63, 2**64 - 1])
def test_the_size_of_a_header_is_compared_with_the_file(folder, length):
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])
    assert "is not a readable safetensors file" in refusal(folder)


def test_a_tokenizer_that_would_match_for_ever_is_refused(folder):
    file = part_folder(folder, "tokenizer") / "tokenizer.json"
    content = json.loads(file.read_text())
    content["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    file.write_text(json.dumps(content))
    assert "regular expression of its pre_tokenizer" in refusal(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"init_inputs": ["x"]},
        {"gguf_file": "/etc/passwd"},
        {"tokenizer_object": "x"},
        {"vocab": {"a": 0}},
        {"unknown": {"a": 1}},
        {"extra_ids": 10**9},
        {"added_tokens_decoder": {"0": {"content": "a", "evil": True}}},
        {"pad_token": {"content": 3}},
        {"model_max_length": -3},
        {"additional_special_tokens": ["x"] * 20_000},
    ],
)
def test_settings_of_a_tokenizer_open_nothing_else(folder, settings):
    name, file = next(entry for entry in settings_files(folder) if entry[1].name == "tokenizer_config.json")
    changed(file, **settings)
    with pytest.raises(InputError, match=str(file)):
        check_part(ModelFolder(folder), "tokenizer", name)


def test_a_missing_weight_is_not_drawn_at_random(folder):
    file = folder / "text_encoder" / "model.safetensors"
    save_file(dict(list(load_file(file).items())[:3]), file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"does not hold all (the )?weights"):
        open_backbone(folder)


@pytest.mark.parametrize(
    ("save", "part", "settings", "told"),
    [
        (save_zimage, "transformer", {"in_channels": 8}, "of other shapes are"),
        (save_flux, "transformer", {"axes_dims_rope": [4, 12, 20]}, "not the attention_head_dim 32"),
        (lambda to: save_qwen(to, PLUS), "processor", {"merge_size": 1}, "processor.merge_size: 1, and text_encoder"),
        (save_qwen, "vae", {"latents_mean": [0.0]}, "parts of different models: the latents_mean"),
    ],
    ids=["shapes", "axes", "processor", "latents"],
)
def test_parts_that_do_not_fit_each_other_are_refused(tmp_path, save, part, settings, told):
    folder = save(tmp_path / "model")
    file = next(file for _, file in settings_files(folder) if file.parent.name == part)
    changed(file, **settings)
    assert told in refusal(folder)


def test_a_text_encoder_of_another_width_is_refused(tmp_path):
    folder, other = save_zimage(tmp_path / "model"), tmp_path / "other"
    narrow = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    Qwen3Model(Qwen3Config(vocab_size=300, num_key_value_heads=2, head_dim=8, **narrow)).save_pretrained(other)
    shutil.rmtree(folder / "text_encoder")
    other.rename(folder / "text_encoder")
    assert "transformer.cap_feat_dim: 32, and text_encoder.hidden_size: 16" in refusal(folder)
