import json
from dataclasses import replace

import pytest
import torch

from danceopd_core.cli import main
from danceopd_core.research.speed import command
from danceopd_core.research.speed.command import ratios
from danceopd_core.research.speed.floor import bare_calls, expected_rollout
from danceopd_core.research.speed.pipeline import SIZES, build_pipeline
from danceopd_core.research.speed.timing import spread
from danceopd_core.research.speed.trainers import SpeedPlan, official, ours


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = build_pipeline(tmp_path_factory.mktemp("speed") / "pipeline", "small", torch.float32)
    return SpeedPlan(folder, 32, "cpu", torch.float32, accumulate=2)


def test_the_report_holds_every_ratio(tmp_path, capsys):
    arguments = ["--pixels", "32", "--repeats", "2", "--updates", "1", "--accumulate", "1", "--device", "cpu"]
    assert main(["bench", "speed", "--out", str(tmp_path), *arguments]) == 0
    report = json.loads((tmp_path / "speed.json").read_text())
    assert set(report["ratios"]) == {"ours / floor", "fast / its floor"}
    assert set(report["seconds"]) == {"ours", "fast", "floor", "fast floor"}
    assert all(len(each) == 2 and min(each) > 0 for each in report["seconds"].values())
    assert (tmp_path / "speed.md").read_text() in capsys.readouterr().out


def test_a_trainer_that_fails_is_left_out_and_told(tmp_path, monkeypatch):
    def fails():
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(command, "official", lambda plan, checkout: fails)
    arguments = ["--pixels", "32", "--repeats", "1", "--updates", "1", "--accumulate", "1", "--device", "cpu"]
    assert main(["bench", "speed", "--out", str(tmp_path), "--official", str(tmp_path), *arguments]) == 0
    report = json.loads((tmp_path / "speed.json").read_text())
    assert "no such kernel" in report["faults"]["official"]
    assert set(report["ratios"]) == {"ours / floor", "fast / its floor"}
    assert "official failed" in (tmp_path / "speed.md").read_text()


def test_what_was_timed_is_compared():
    taken = {"official": [6.0], "ours": [4.0], "compiled": [3.0], "floor": [2.0]}
    found = {what: value.mean for what, value in ratios(taken).items()}
    assert found == {
        "official / ours": 1.5,
        "official / compiled": 2.0,
        "ours / floor": 2.0,
        "ours / compiled": pytest.approx(4 / 3),
        "compiled / floor": 1.5,
    }


def test_an_update_makes_the_forwards_that_it_is_reckoned_by(plan):
    """The indices of its states in rollouts, the teacher's, and the student's that has a backward."""
    session = ours(plan, 16)
    calls = []
    session.backbone.network.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    result = next(iter(session.trainer))
    assert calls.count(False) == sum(result.indices) + plan.accumulate
    assert calls.count(True) == plan.accumulate


def test_the_expected_rollout_is_the_mean_index_of_the_default_query():
    assert expected_rollout(16) == pytest.approx(5 / 7 * 16 - 0.5, abs=0.01)  # each step's middle, for a smooth density


def test_the_bare_network_has_no_lora_and_gets_it_back(plan):
    session = ours(plan, 16)
    layers = [module for module in session.backbone.network.modules() if module._forward_hooks]
    before = [dict(module._forward_hooks) for module in layers]
    seen = []
    session.backbone.network.register_forward_pre_hook(lambda *_: seen.append([bool(m._forward_hooks) for m in layers]))
    for call in bare_calls(session.backbone, session.trainer):
        call()
    assert len(seen) == 2
    assert not any(any(each) for each in seen)
    assert [dict(module._forward_hooks) for module in layers] == before
    assert all(before)


def test_both_sizes_are_of_the_real_class():
    from diffusers import SD3Transformer2DModel

    counts = {}
    for name, shapes in SIZES.items():
        with torch.device("meta"):
            network = SD3Transformer2DModel(sample_size=128, patch_size=2, in_channels=16, qk_norm="rms_norm", **shapes)
        counts[name] = sum(parameter.numel() for parameter in network.parameters())
    assert 8e6 < counts["small"] < 1e7
    assert 2.2e9 < counts["medium"] < 2.5e9


def test_another_folder_is_not_the_official_trainer(plan, tmp_path):
    with pytest.raises(ValueError, match="give a checkout of worldbench/DanceOPD"):
        official(replace(plan), tmp_path)


def test_an_interval_covers_the_mean():
    one = spread([1.0, 2.0, 3.0])
    assert (one.mean, one.half) == (2.0, pytest.approx(4.303 / 3**0.5))
    assert spread([1.0] * 30).half == 0
