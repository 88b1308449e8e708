"""A run over a model of few steps is on that model's own path, and says so."""

from dataclasses import replace

import pytest

from danceopd_core.cli.parser import main
from danceopd_core.errors import InputError
from danceopd_core.models.registry import open_backbone
from danceopd_core.recipe.io import read_stored_recipe, write_recipe
from danceopd_core.recipe.schema import Bucket, Query, Recipe, Route, Teacher
from danceopd_core.runs.files.identity import recipe_digest
from danceopd_core.runs.plans.planning import plan_run
from danceopd_core.runs.training.run_dir import RunFolder
from danceopd_core.runs.training.session import open_session

from ..tiny_families import save_flux2
from ..versions import needs_diffusers

pytestmark = needs_diffusers("0.37")


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    return save_flux2(tmp_path_factory.mktemp("klein"), distilled=True)


def of(model, out, **settings) -> Recipe:
    routes = (Route("a", "base", Bucket(prompts=("a red cat",))),)
    settings = {"teachers": {"base": Teacher()}, "width": 64, "height": 64, **settings}
    return Recipe(str(model), routes, **settings, dtype="float32", device="cpu", out=str(out))


def test_the_path_is_the_models_own_few_steps_at_its_own_sigmas(distilled, tmp_path):
    heard = []
    session = open_session(of(distilled, tmp_path / "run"), log=heard.append)
    assert session.recipe.rollout_steps == 4
    assert session.trainer.sigmas.equal(open_backbone(distilled).sigmas(4, 64, 64))
    assert "the model was distilled to 4 steps without guidance: its path has rollout_steps: 4" in heard


def test_any_other_model_has_sixteen(zimage_folder, tmp_path):
    plan = plan_run(of(zimage_folder, tmp_path / "run")).on_own_steps()
    assert (plan.recipe.rollout_steps, plan.advice()) == (16, [])


def test_what_is_not_as_the_model_was_made_is_told(distilled, tmp_path, capsys):
    recipe = of(distilled, tmp_path / "run", rollout_steps=16, sigmas="paper", teachers={"base": Teacher(guidance=4.0)})
    assert plan_run(recipe).on_own_steps().advice() == [
        "rollout_steps: the model was distilled to 4 steps, not 16: leave it out",
        "sigmas: the few steps of the model lie on its own schedule: leave it out",
        "guidance of base: the model was made without it: leave it out",
    ]
    write_recipe(tmp_path / "recipe.yaml", recipe)
    assert main(["train", str(tmp_path / "recipe.yaml"), "--dry-run"]) == 0
    assert "distilled to 4 steps, not 16" in capsys.readouterr().out


def test_more_queries_than_the_model_has_steps_are_refused(distilled, tmp_path):
    with pytest.raises(InputError, match=r"query\.k: 5 states of a path with 4 rollout_steps"):
        plan_run(of(distilled, tmp_path / "run", query=Query("uniform", 5))).on_own_steps()


def test_a_resumed_run_keeps_its_steps(distilled, tmp_path):
    recipe, folder = of(distilled, tmp_path / "run"), RunFolder(tmp_path / "run")
    folder.path.mkdir()
    for steps, kept in ((4, 4), (None, 16)):  # a release that knew 16 alone left them out of its file
        write_recipe(folder.path / "recipe.yaml", replace(recipe, rollout_steps=steps))
        resumed = folder.base_kept(recipe)
        assert resumed.rollout_steps == kept
        assert recipe_digest(resumed) == recipe_digest(read_stored_recipe(folder.path / "recipe.yaml"))


def test_sixteen_steps_were_the_default_of_runs_that_there_are(distilled, tmp_path):
    recipe = of(distilled, tmp_path / "run")
    assert replace(recipe, rollout_steps=16).digest() == recipe.digest() != replace(recipe, rollout_steps=8).digest()
