import pytest
import torch
from safetensors.torch import save_file

from danceopd_core.errors import InputError
from danceopd_core.runs.files.train_state import load_state, save_state


def test_what_is_saved_is_what_is_loaded(tmp_path):
    state = {
        "update": 7,
        "rate": 1e-4,
        "name": "x",
        "none": None,
        "list": [1, [torch.arange(3)], {"deep": torch.ones(2, 2)}],
        "by number": {0: {"step": torch.tensor(3.0)}, 1: {}},
    }
    save_state(tmp_path / "s.safetensors", state)
    found = load_state(tmp_path / "s.safetensors")
    assert found["update"] == 7
    assert found["rate"] == 1e-4
    assert found["none"] is None
    assert torch.equal(found["list"][1][0], torch.arange(3))
    assert torch.equal(found["list"][2]["deep"], torch.ones(2, 2))
    assert found["by number"][0]["step"] == 3
    assert list(found["by number"]) == [0, 1]


def test_a_failed_save_leaves_the_old_state(tmp_path, monkeypatch):
    path = tmp_path / "s.safetensors"
    save_state(path, {"update": 1})

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="no space"):
        save_state(path, {"update": 2})
    assert load_state(path)["update"] == 1


def test_a_damaged_or_foreign_file_is_named(tmp_path):
    path = tmp_path / "s.safetensors"
    save_state(path, {"weights": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"s\.safetensors"):
        load_state(path)
    save_file({"w": torch.ones(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(InputError, match="not a training state"):
        load_state(tmp_path / "lora.safetensors")
