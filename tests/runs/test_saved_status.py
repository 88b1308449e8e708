"""The saved status of a run and the identity, as a folder that others wrote has them."""

from __future__ import annotations

import json

import pytest

from danceopd_core.runs.files.numbers import measured
from danceopd_core.runs.front.interactive import _continues
from danceopd_core.runs.live.saved_status import is_status

STATUS = {"state": "done", "update": 4, "steps": 4, "losses": {"a": 0.5}, "pictures": []}
NOT_FINITE = [float("nan"), float("inf"), -float("inf"), 10**400, -(10**400)]


@pytest.mark.parametrize("name", ["rate", "memory_mb", "eta"])
@pytest.mark.parametrize("wrong", [*NOT_FINITE, -1, 1e300])
def test_numbers_that_were_not_measured_are_unknown(name, wrong):
    status = {**STATUS, name: wrong}
    assert is_status(status)
    assert status[name] is None


@pytest.mark.parametrize("wrong", [0, 1e-320, 1e-300, *NOT_FINITE])
def test_a_rate_is_no_less_than_what_can_be_measured(wrong):
    assert measured(wrong) is None
    assert measured(2) == 2


@pytest.mark.parametrize("wrong", NOT_FINITE)
def test_what_is_answered_is_json(wrong):
    status = {**STATUS, "losses": {"a": wrong}, "work": {"more": [{"seconds": wrong}]}, "more": [wrong]}
    assert is_status(status)
    assert json.loads(json.dumps(status, allow_nan=False))["work"] == {"more": [{"seconds": None}]}
    saved = {"lora": "a.safetensors", "folder": "", "update": 4, "seconds": wrong, "best_kept": False}
    status = {**STATUS, "saved": saved}
    assert is_status(status)
    assert status["saved"]["seconds"] == 0
    assert not is_status({**STATUS, "asked": [[0.5, wrong]]})


@pytest.mark.parametrize(
    "wrong", [{}, [], "x", {"update": 1}, {"update": 1.0, "percent": 5}, {"update": 10**400, "percent": 5},
              {"update": True, "percent": 5}, *({"update": 1, "percent": number} for number in NOT_FINITE)],
)  # fmt: skip
def test_a_best_without_its_numbers_is_none(wrong):
    status = {**STATUS, "best": wrong}
    assert is_status(status)
    assert status["best"] is None
    status = {**STATUS, "best": {"update": 2, "percent": 50.0}}
    assert is_status(status)
    assert status["best"] == {"update": 2, "percent": 50.0}


@pytest.mark.parametrize("steps", [None, "4", 4.0, True, [], -1, 10**400])
def test_an_identity_whose_steps_are_no_number_is_of_another_run(steps):
    identity = {"recipe": "r", "contents": "c", "steps": 4}
    assert _continues(identity, identity, None)
    assert not _continues({**identity, "steps": steps}, identity, None)
    assert not _continues({"recipe": "r", "contents": "c"}, identity, None)


@pytest.mark.parametrize("name", ["x" * 5000 + ".safetensors", "\ud800.safetensors", "../a.safetensors"], ids=range(3))
def test_a_lora_of_a_name_that_none_has_is_no_status(name):
    saved = {"lora": name, "folder": "", "update": 4, "seconds": 1.0, "best_kept": False}
    assert not is_status({**STATUS, "saved": saved})
