"""Files that loaders refuse are examined all the same, and what loaders make of their keys is told."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from danceopd_core.cli import main
from danceopd_core.doctor.effect import Effect, effect_text
from danceopd_core.doctor.lora_file import read_for_examination
from danceopd_core.errors import InputError
from danceopd_core.shapes import locate

DOWN, UP = torch.ones(4, 8), torch.ones(6, 4)


def written(tmp_path, tensors, metadata=None):
    path = tmp_path / "some.safetensors"
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, path, metadata)
    return path


@pytest.mark.parametrize(
    ("prefix", "told"),
    [
        ("transformer.", "diffusers'"),
        ("diffusion_model.", "ComfyUI's names"),
        ("lora_unet_", "kohya's"),
        ("", "no layout"),
    ],
)
def test_the_layout_is_told(tmp_path, prefix, told):
    path = written(tmp_path, {f"{prefix}layer.lora_A.weight": DOWN, f"{prefix}layer.lora_B.weight": UP})
    (line,) = read_for_examination(path).keys_text()
    assert line.startswith("1 layers with")
    assert told in line


def test_alpha_counts(tmp_path):
    tensors = {
        "transformer.a.lora_down.weight": DOWN,
        "transformer.a.lora_up.weight": UP,
        "transformer.a.alpha": torch.tensor(2.0),
    }
    (layer,) = read_for_examination(written(tmp_path, tensors)).health().layers
    assert layer.norm == pytest.approx(float((UP @ DOWN * 2 / 4).norm()))


def test_what_no_loader_uses_is_told_and_the_rest_examined(tmp_path):
    file = read_for_examination(
        written(
            tmp_path,
            {
                "transformer.a.lora_A.weight": DOWN,
                "transformer.a.lora_B.weight": UP,
                "transformer.b.lora_A.weight": DOWN,
                "transformer.c.lora_A.weight": DOWN,
                "transformer.c.lora_B.weight": torch.ones(6, 3),
                "lora_te1_x.lora_down.weight": DOWN,
                "transformer.d.lokr_w1": UP,
            },
        )
    )
    assert [layer.module for layer in file.health().layers] == ["transformer.a"]
    text = "\n".join(file.keys_text())
    assert all(part in text for part in ("transformer.b", "transformer.c", "text encoder", "LoKr"))


def test_a_file_without_a_lora_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no LoRA"):
        read_for_examination(written(tmp_path, {"weight": UP}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((0, 0, 0), "no effect"),
        ((1e-5, 1e-4, 0), "hardly"),
        ((0.1, 0.2, 0.3), "by 10.00%"),
        ((3, 0, 0), "lower strength"),
    ],
)
def test_the_effect_in_words(changes, told):
    assert told in effect_text([Effect(0.5, change) for change in changes])


def test_the_command_measures_what_a_lora_changes(capsys, tmp_path):
    """The same LoRA without its up factors changes nothing, and is dead."""
    assert main(["doctor", "shapes:lit", "--model", "shapes", "--picture", str(tmp_path / "spectrum.png")]) == 0
    out = capsys.readouterr().out
    assert "lit.safetensors: healthy: 56 layers of rank 16" in out
    assert "changes the model's answer by" in out
    assert (tmp_path / "spectrum.png").is_file()
    from safetensors.torch import load_file

    tensors = load_file(locate("shapes:lit"))
    dead = written(tmp_path, {key: tensor * ("lora_B" not in key) for key, tensor in tensors.items()})
    assert main(["doctor", str(dead), "--model", "shapes"]) == 1
    out = capsys.readouterr().out
    assert "dead: its 56 layers change nothing" in out
    assert "no effect" in out


def test_a_lora_of_another_model_is_told_with_what_it_holds(capsys, tmp_path):
    path = written(tmp_path, {"transformer.a.lora_A.weight": DOWN, "transformer.a.lora_B.weight": UP})
    assert main(["doctor", str(path), "--model", "shapes"]) == 2
    told = capsys.readouterr()
    assert "1 layers of rank 4" in told.out
    assert "match no layer of this network" in told.err
