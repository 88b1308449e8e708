"""What a run will take: its memory is the planned one, its time that of the latest run with the same work."""

import json
from dataclasses import replace

import pytest

from danceopd_core.algorithm.expected_cost import expected_forwards
from danceopd_core.algorithm.flow import linear_sigmas
from danceopd_core.errors import InputError
from danceopd_core.recipe.io import write_recipe
from danceopd_core.recipe.schema import Bucket, Query, Recipe, Route, Teacher
from danceopd_core.runs.budget.memory import GIB, planned_memory
from danceopd_core.runs.front import forecast as module
from danceopd_core.runs.front.forecast import Forecast, forecast, memory_text, time_text
from danceopd_core.runs.plans.planning import build_method

ROUTE = Route("draw", "base", Bucket(prompts=("a red circle",)))
RECIPE = Recipe("shapes", (ROUTE,), {"base": Teacher()}, steps=100, width=64, height=64, dtype="float32", device="cpu")
MODEL = replace(RECIPE, model="comfyui:Z-Image:0123456789abcdef")
STATUS = {"state": "done", "update": 50, "steps": 50, "losses": {}, "pictures": [], "rate": 2.0, "memory_mb": 900.0}


@pytest.fixture
def ran(tmp_path):
    """Leaves what a run of this recipe leaves, later than those before."""

    def leave(name, recipe, **status):
        folder = tmp_path / "danceopd" / name
        folder.mkdir(parents=True)
        write_recipe(folder / "recipe.yaml", recipe)
        (folder / "identity.json").write_text("{}")
        (folder / "status.json").write_text(json.dumps(STATUS | status))

    return leave


def test_memory_is_the_planned_one_and_is_walked_once_for_a_shape(tmp_path, monkeypatch):
    found = forecast(RECIPE, tmp_path)
    assert (found.memory, found.seconds, found.basis) == (planned_memory(RECIPE).peak, None, "shapes")
    monkeypatch.setattr(module, "estimate", None)
    assert forecast(replace(RECIPE, steps=7, seed=3, rollout_steps=4), tmp_path).memory == found.memory
    with pytest.raises(TypeError):
        forecast(replace(RECIPE, width=128), tmp_path)


def test_time_is_that_of_the_latest_run_with_the_same_work(ran, tmp_path):
    ran("other size", replace(RECIPE, width=128), rate=9.0)
    ran("no update", RECIPE, update=0, rate=None)
    assert forecast(RECIPE, tmp_path).seconds is None
    ran("own", replace(RECIPE, steps=50, seed=4))
    found = forecast(RECIPE, tmp_path)
    assert (found.seconds, found.basis) == (pytest.approx(50), "measured")
    ran("later", RECIPE, rate=4.0)
    assert forecast(RECIPE, tmp_path).seconds == pytest.approx(25)
    assert forecast(replace(RECIPE, accumulate=8), tmp_path).seconds == pytest.approx(50)  # twice the samples
    (tmp_path / "danceopd" / "later" / "recipe.yaml").write_text("model: [")
    assert forecast(RECIPE, tmp_path).seconds == pytest.approx(50)


def test_time_is_scaled_by_the_forwards_of_an_update(ran, tmp_path):
    ran("own", RECIPE)
    other = replace(RECIPE, rollout_steps=8, query=Query(bias="high"), teachers={"base": Teacher(guidance=2.0)})
    forwards = [
        expected_forwards(build_method(recipe), linear_sigmas(recipe.path_steps), calls)
        for recipe, calls in ((RECIPE, 1), (other, 2))
    ]
    assert forecast(other, tmp_path).seconds == pytest.approx(50 * forwards[1] / forwards[0])


def test_a_model_of_comfyui_is_known_from_its_runs_only(ran, tmp_path):
    assert forecast(MODEL, tmp_path).text() == "memory and time are known after the first updates"
    ran("own", MODEL)
    untitled = replace(MODEL, model="comfyui::0123456789abcdef")  # by a prompt, which has no title
    for recipe in (MODEL, untitled):
        found = forecast(recipe, tmp_path)
        assert (found.memory, found.seconds, found.basis) == (900_000_000, pytest.approx(50), "measured")
    assert forecast(replace(MODEL, model="comfyui::fedcba9876543210"), tmp_path).seconds is None


def test_it_is_told_in_one_sentence():
    assert Forecast(17 * GIB, 2400, True).text() == "17 GiB, about 40 min here"
    assert Forecast(17 * GIB, None, False).text() == "17 GiB; time is known after the first updates"
    assert Forecast(None, 5, True).text() == "about 5 s here"
    assert [memory_text(size * GIB) for size in (0.3, 0.96, 9.94, 10)] == ["307 MiB", "1.0 GiB", "9.9 GiB", "10 GiB"]
    assert [time_text(s) for s in (0.1, 89, 90, 5399, 5400)] == ["1 s", "89 s", "2 min", "90 min", "1.5 h"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("width", {"width": 10**9}),
        ("rollout_steps", {"rollout_steps": 10**9}),
        ("batch", {"batch": 10**30}),
        ("query.k", {"query": Query(k=10**6)}),
    ],
)
def test_sizes_that_no_run_has_are_refused_before_anything_is_reckoned(name, change, tmp_path, ran):
    ran("hostile", replace(RECIPE, **change))
    with pytest.raises(InputError, match=f"{name}: nothing is reckoned"):
        forecast(replace(RECIPE, **change), tmp_path)
    assert forecast(RECIPE, tmp_path).seconds is None


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 10**400, -1, 1e-320, 0])
def test_a_rate_that_was_not_measured_is_passed_over(ran, tmp_path, wrong):
    ran("odd", RECIPE, rate=wrong)
    assert forecast(RECIPE, tmp_path).seconds is None
    ran("odd memory", MODEL, memory_mb=wrong)
    assert forecast(MODEL, tmp_path).memory is None
