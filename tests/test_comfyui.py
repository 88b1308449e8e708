"""A job that promises a ComfyUI cannot pass without one."""

import pytest

from . import comfyui


@pytest.mark.parametrize(("promised", "outcome"), [("1", pytest.fail.Exception), ("0", pytest.skip.Exception)])
def test_an_absent_comfyui_fails_what_was_promised_one_and_skips_the_rest(monkeypatch, tmp_path, promised, outcome):
    monkeypatch.setenv("DANCEOPD_REQUIRE_COMFYUI", promised)
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(outcome, match="there is no ComfyUI"):
        comfyui.comfyui_root()
