"""Laws of recipes: reading and writing are inverse, and every fault is reported at once."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import pytest

from danceopd_core import shapes
from danceopd_core.algorithm.losses import OdeKl
from danceopd_core.algorithm.methods import METHODS
from danceopd_core.algorithm.query import Beta
from danceopd_core.errors import InputError
from danceopd_core.recipe.io import checked, parse_recipe, read_recipe, write_recipe
from danceopd_core.recipe.schema import (
    HELD_OUT,
    Bucket,
    LearnedRouter,
    Optimizer,
    Query,
    Recipe,
    Route,
    Shift,
    Student,
    Teacher,
)
from danceopd_core.recipe.updating import Schedule
from danceopd_core.runs.plans.planning import build_method


def base(**changes) -> dict:
    """A sound recipe as a mapping."""
    route = {"name": "r", "teacher": "base", "bucket": {"prompts": ["a cat"]}}
    return {"model": "shapes", "teachers": {"base": {}}, "routes": [route], **changes}


def faults_of(mapping: dict) -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_recipe(mapping)
    head, *lines = str(caught.value).splitlines()
    assert head == ("the recipe has a fault:" if len(lines) == 1 else f"the recipe has {len(lines)} faults:")
    return [line.strip() for line in lines]


FULL = Recipe(
    model="shapes",
    routes=(
        Route(
            "text",
            {"base": 0.75, "edit": 0.25},
            Bucket(prompts=("no", "null", "a: b # c", " two\nlines\t", "猫 🐈", "1e-4")),
        ),
        Route("edits", "edit", Bucket(shapes="local", count=12), 0.0),
        Route("files", "real", Bucket(csv="/data/p.csv", task="edit"), 2.5),
    ),
    teachers={
        "base": Teacher(guidance=3.5, negative="off"),
        "edit": Teacher(lora="shapes:edit", strength=-0.5),
        "real": Teacher(checkpoint="shapes:realism"),
    },
    student=Student("shapes:edit", 8, 4.0, ("to_q", "w1")),
    optimizer=Optimizer(1e-5, 0.01, (0.8, 0.95), 0.5, "cosine", 10, 0.999),
    query=Query("mid", 3),
    router="all",
    steps=7,
    seed=2**63 - 1,
    dtype="float32",
    gradient_checkpointing=True,
    offload=True,
)


@pytest.mark.parametrize(
    "recipe",
    [
        FULL,
        parse_recipe(base()),
        replace(FULL, query=Query(sigma=(0.0, 0.5))),
        replace(FULL, student=Student(rank=4, base_lora="shapes:edit")),
        replace(FULL, query=Query(), method="flowopd", eta=0.3, group=4, anchor=0.04),
        replace(FULL, query=Query(), method="diffusionopd", ode_kl_weight="uniform"),
        replace(FULL, sigmas="paper"),
        replace(FULL, sigmas=Shift(3.0)),
        replace(FULL, learned_router=LearnedRouter(Bucket(csv="/data/more.csv"), 0.4)),
    ],
)
def test_reading_is_the_inverse_of_writing(recipe, tmp_path):
    path = tmp_path / "deep" / "recipe.yaml"
    write_recipe(path, recipe)
    assert read_recipe(path) == recipe
    assert parse_recipe(recipe.to_dict()) == recipe
    assert parse_recipe(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert [file.name for file in path.parent.iterdir()] == ["recipe.yaml"]


def test_only_what_differs_from_the_default_is_written(tmp_path):
    write_recipe(tmp_path / "recipe.yaml", parse_recipe(base(steps=5)))
    text = (tmp_path / "recipe.yaml").read_text()
    assert text == (
        "model: shapes\nroutes:\n- name: r\n  teacher: base\n  bucket:\n    prompts:\n    - a cat\n"
        "teachers:\n  base: {}\nsteps: 5\n"
    )


def test_a_recipe_with_all_defaults(recipe_file, plain_text):
    recipe = read_recipe(recipe_file(plain_text))
    assert recipe.routes[0] == Route("text", "base", Bucket(prompts=("a red circle", "no", "on", "7", "1e-4")))
    assert recipe.routes[1].weight == 2.0
    assert recipe.teachers == {"base": Teacher(), "edit": Teacher(lora="shapes:edit")}
    assert recipe.optimizer == Optimizer(lr=2e-4, weight_decay=0.0, clip=1.0)
    assert (recipe.steps, recipe.accumulate, recipe.path_steps, recipe.student.rank) == (3000, 4, 16, 128)


def test_a_recipe_made_in_python_is_checked_like_a_file():
    recipe = parse_recipe(base())
    assert checked(recipe) is recipe  # it was checked when it was read
    by_hand = Recipe("shapes", (Route("r", "base", Bucket(prompts=("a cat",)), 1),), {"base": Teacher()})
    assert checked(by_hand) == recipe
    assert isinstance(checked(by_hand).routes[0].weight, float)
    for broken in (replace(by_hand, steps=0, method="danceopt"), replace(recipe, steps=0, method="danceopt")):
        with pytest.raises(InputError) as caught:
            checked(broken)
        assert [fault.setting for fault in caught.value.faults] == ["steps", "method"]


def test_a_recipe_file_is_checked_once(recipe_file, plain_text):
    recipe = read_recipe(recipe_file(plain_text))
    assert checked(recipe) is recipe
    assert checked(replace(recipe, device="cpu")) == replace(recipe, device="cpu")


def test_the_digest_tells_what_changes_the_result():
    recipe = parse_recipe(base())
    same = [{"out": "elsewhere"}, {"device": "cpu"}, {"save_every": 1}, {"offload": True}]
    assert {replace(recipe, **change).digest() for change in same} == {recipe.digest()}
    other = {"steps": 1, "seed": 1, "dtype": "float32", "width": 64, "anchor": 0.1, "model": "/m"}
    changed = [replace(recipe, **{name: value}) for name, value in other.items()]
    changed.append(replace(recipe, optimizer=Optimizer(lr=1e-4)))
    assert len({recipe.digest(), *(one.digest() for one in changed)}) == len(changed) + 1


def test_a_setting_at_its_default_does_not_enter_the_digest():
    """So a setting that is added later does not change the digest of recipes without it."""
    recipe = parse_recipe(base())
    settings = {**base(), "model": "shapes", "held_out": HELD_OUT}  # which earlier releases had as 0
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    assert recipe.digest() == hashlib.sha256(text.encode()).hexdigest()
    assert (
        parse_recipe(base(steps=3000, student={"rank": 128}, components={}, quantise=None)).digest() == recipe.digest()
    )


def test_settings_that_change_the_result_change_the_digest():
    recipe = parse_recipe(base())
    grids = [replace(recipe, sigmas=grid).digest() for grid in ("paper", Shift(3.0), Shift(6.0))]
    assert len({recipe.digest(), *grids}) == 4
    assert replace(recipe, sigmas=Shift(3)).digest() == grids[1]
    learned = [replace(recipe, learned_router=LearnedRouter(Bucket(prompts=("a",)), h)).digest() for h in (0.25, 0.5)]
    assert len({recipe.digest(), *learned}) == 3
    assert replace(recipe, student=Student(base_lora="/a")).digest() != recipe.digest()
    assert replace(recipe, teachers={"base": Teacher(model="/m")}).digest() != recipe.digest()


def test_a_recipe_from_before_teachers_had_models_keeps_its_digest():
    """As version 0.2.0 computed it before `teachers.<name>.model` was there, and `held_out`."""
    assert parse_recipe(base(held_out=0)).digest() == "f4721356629b05ad3413bb2a8fd6d758a6079a9ddf133e6631e889c6f7eded9a"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("papre", "sigmas: no sigma schedule is named 'papre' (did you mean 'paper'?)"),
        ({"shift": 0}, "sigmas.shift: 0.0 is out of range: it must be above 0"),
        ({"shfit": 3}, "sigmas.shfit: there is no such setting (did you mean 'shift'?)"),
        ({}, "sigmas.shift: it is required, but missing"),
        ([3], "sigmas: expected text, not a list of 1"),
    ],
)
def test_a_grid_is_a_known_name_or_a_shift(given, told):
    (fault,) = faults_of(base(sigmas=given))
    assert fault.startswith(told)


def test_the_digest_does_not_depend_on_how_a_value_was_written(tmp_path, monkeypatch):
    recipe = parse_recipe(base())
    by_hand = Recipe("shapes", (Route("r", "base", Bucket(prompts=("a cat",)), 1),), {"base": Teacher(guidance=1)})
    assert by_hand.digest() == recipe.digest()
    monkeypatch.chdir(tmp_path)
    relative = replace(recipe, teachers={"base": Teacher(lora="a.safetensors")})
    write_recipe(tmp_path / "run" / "recipe.yaml", relative)
    assert read_recipe(tmp_path / "run" / "recipe.yaml").digest() == relative.digest()


def test_the_digest_is_the_same_in_every_process():
    code = (
        "from danceopd_core.recipe.schema import *; print(Recipe('m', (), {'a': Teacher(), 'b': Teacher()}).digest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == Recipe("m", (), {"b": Teacher(), "a": Teacher()}).digest()


def test_describing_a_run_imports_no_torch():
    code = "import sys, danceopd_core.recipe; assert 'torch' not in sys.modules; assert 'diffusers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_paths_are_meant_from_the_recipe_first(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, names in ((here, ["both", "mine"]), (there, ["both", "yours"])):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    monkeypatch.chdir(there)
    (here / "recipe.yaml").write_text(
        "{model: both, student: {start: yours},"
        " teachers: {a: {lora: mine}, b: {checkpoint: nowhere, lora: 'shapes:x'}},"
        f" routes: [{{name: r, teacher: a, bucket: {{csv: {here / 'mine'}}}}}], out: runs}}"
    )
    recipe = read_recipe(here / "recipe.yaml")
    assert recipe.model == str(here / "both")
    assert recipe.student.start == str(there / "yours")
    assert recipe.teachers["a"].lora == str(here / "mine")
    assert recipe.teachers["b"] == Teacher(str(there / "nowhere"), "shapes:x")
    assert recipe.routes[0].bucket.csv == str(here / "mine")
    assert recipe.out == "runs"


def test_the_schedules_are_those_of_diffusers():
    from diffusers.optimization import SchedulerType

    assert {*get_args(Schedule), "piecewise_constant"} == {schedule.value for schedule in SchedulerType}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": 0}, "steps: 0 is out of range: it must be at least 1"),
        ({"batch": 10**12}, "batch: 1000000000000 is out of range"),
        ({"seed": -1}, "seed: -1 is out of range"),
        ({"width": "0"}, "width: 0 is out of range"),
        ({"student": {"rank": "0"}}, "student.rank: 0 is out of range"),
        ({"student": {"alpha": "-1"}}, "student.alpha: -1.0 is out of range"),
        ({"student": {"start": "a", "base_lora": "b"}}, "student.base_lora: only a fresh student is trained on top of"),
        ({"optimizer": {"lr": "0"}}, "optimizer.lr: 0.0 is out of range: it must be above 0"),
        ({"optimizer": {"ema": "1"}}, "optimizer.ema: 1.0 is out of range: it must be at least 0 and below 1"),
        ({"optimizer": {"betas": ["0.9", "1"]}}, "optimizer.betas[1]: 1.0 is out of range"),
        ({"optimizer": {"schedule": "cosin"}}, "optimizer.schedule: 'cosin' is not one of"),
        ({"optimizer": {"warmup": 5}}, "optimizer.warmup: the constant schedule has no warmup"),
        ({"method": "danceopt"}, "method: no method is named 'danceopt' (did you mean 'danceopd'?)"),
        ({"router": "weigted"}, "router: no router is named 'weigted' (did you mean 'weighted'?)"),
        ({"dtype": "bf16"}, "dtype: 'bf16' is not one of bfloat16, float16, float32"),
        ({"device": "gpu"}, "device: 'gpu' is not a device"),
        ({"eta": 0.5}, "eta: danceopd has no such setting, only flowopd"),
        ({"group": 2}, "group: danceopd has no such setting, only flowopd"),
        ({"anchor": 0.5}, "anchor: danceopd has no such setting, only flowopd"),
        ({"ode_kl_weight": "uniform"}, "ode_kl_weight: danceopd has no such setting, only diffusionopd"),
        ({"query": {"bias": "lwo"}}, "query.bias: no query bias is named 'lwo' (did you mean 'low'?)"),
        ({"query": {"k": 17}}, "query.k: 17 states of a path with 16 rollout_steps"),
        ({"query": {"bias": "every", "k": 2}}, "query.k: the bias 'every' queries all states, not 2"),
        ({"query": {"bias": "high", "sigma": [0.1, 0.2]}}, "query: give bias or sigma, not both"),
        ({"query": {"sigma": [0.2, 0.2]}}, "query.sigma: the range from 0.2 to 0.2 is empty"),
        ({"query": {"sigma": [0.2, 2]}}, "query.sigma[1]: 2.0 is out of range"),
        ({"query": {"bias": "mid"}, "method": "diffusionopd"}, "query: diffusionopd queries every state"),
        ({"teachers": {"base": {"strength": 2}}}, "teachers.base.strength: it scales a lora"),
        ({"teachers": {"base": {"model": "shapes"}}}, "teachers.base.model: it is the run's own model: leave it out"),
        (
            {"teachers": {"base": {"lora": "shapes:native_edit"}}},
            "teachers.base.lora: shapes:native_edit is a LoRA for the embedded model in ComfyUI's own network",
        ),
        (
            {"student": {"start": "shapes:native_edit"}},
            "student.start: shapes:native_edit is a LoRA for the embedded model in ComfyUI's own network",
        ),
        ({"teachers": {"base": {"guidance": -1}}}, "teachers.base.guidance: -1.0 is out of range"),
        ({"teachers": {"bass": {}}}, "routes[0].teacher: no teacher is named 'base' (did you mean 'bass'?)"),
        ({"teachers": {"base": {}, " ": {}}}, "teachers: ' ' is not a valid name"),
        ({"routes": []}, "routes: the list is empty"),
        ({"routes": {"a": 1}}, "routes: expected a list, not a mapping"),
        ({"model": ""}, "model: it must not be empty"),
    ],
)
def test_a_fault_of_a_setting(change, told):
    (line,) = faults_of(base(**change))
    assert line.startswith(told)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weight": -1}, "routes[0].weight: -1.0 is out of range"),
        ({"weight": 0}, "routes: every weight is 0"),
        ({"name": " "}, "routes[0].name: it must not be empty"),
        ({"teacher": ["base"]}, "routes[0].teacher: expected text, not a list of 1"),
        ({"teacher": {"base": 0.5}}, "routes[0].teacher: the weights of mixed teachers sum to 0.5, not 1"),
        ({"teacher": {"base": "nan"}}, "routes[0].teacher.base: expected a finite number"),
        ({"teacher": {}}, "routes[0].teacher: the weights of mixed teachers sum to 0, not 1"),
        ({"bucket": {}}, "routes[0].bucket: give exactly one of csv, prompts, shapes, encoded, stream, not none"),
        ({"bucket": {"prompt": "a"}}, "routes[0].bucket.prompt: there is no such setting (did you mean 'prompts'?)"),
        (
            {"bucket": {"prompts": ["a"], "csv": "b"}},
            "routes[0].bucket: give exactly one of csv, prompts, shapes, encoded, stream, not csv",
        ),
        ({"bucket": {"prompts": "a cat"}}, "routes[0].bucket.prompts: expected a list"),
        ({"bucket": {"prompts": ["a", ""]}}, "routes[0].bucket.prompts[1]: it must not be empty"),
        ({"bucket": {"prompts": ["a"], "task": "t"}}, "routes[0].bucket.task: it selects rows of a csv"),
        ({"bucket": {"csv": "a", "count": 3}}, "routes[0].bucket.count: it is a number of items of the embedded world"),
        (
            {"bucket": {"shapes": "locl"}},
            "routes[0].bucket.shapes: no kind of the embedded world is named 'locl' (did you",
        ),
        ({"bucket": {"shapes": "t2i", "count": -1}}, "routes[0].bucket.count: -1 is out of range"),
    ],
)
def test_a_fault_of_a_route(change, told):
    route = {"name": "r", "teacher": "base", "bucket": {"prompts": ["a cat"]}, **change}
    (line,) = faults_of(base(routes=[route]))
    assert line.startswith(told)


def test_route_names_are_different():
    (line,) = faults_of(base(routes=base()["routes"] * 2))
    assert line == "routes[1].name: 'r' is already the name of routes[0]: give another"


def test_no_teacher_takes_the_name_of_the_student():
    assert faults_of(base(teachers={"base": {}, "student": {}}))[0].startswith("teachers.student: ")


def test_every_fault_is_reported_at_once():
    routes = [
        {"name": "r", "teacher": "bass", "bucket": {"prompt": "x"}, "weight": "much"},
        {"nam": "s", "teacher": "base", "bucket": {}},
        7,
    ]
    lines = faults_of({"model": "m", "teachers": {"base": {"lara": 1}}, "routes": routes, "stepz": 3, "method": "x"})
    starts = [
        "stepz",
        "routes[0].bucket.prompt",
        "routes[0].weight",
        "routes[1].nam",
        "routes[2]",
        "teachers.base.lara",
    ]
    starts += ["routes[1].bucket", "routes[0].teacher", "method"]
    assert [line.split(":")[0] for line in lines] == starts


def test_missing_parts_are_faults():
    assert [line.split(":")[0] for line in faults_of({})] == ["model", "routes", "teachers"]
    assert faults_of([1])[0].startswith("expected a mapping of settings, not a list of 1")  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"model: [", b"- a\n", b"", b"just text"])
def test_files_that_are_no_recipe_are_named(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"recipe\.yaml"):
        read_recipe(path)


def test_files_that_cannot_be_read_are_named(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(InputError, match=f"the recipe {path} cannot be read"):
            read_recipe(path)


def test_duplicate_keys_are_refused_with_the_rest(recipe_file, plain_text):
    with pytest.raises(InputError, match=r"(?s)2 faults.*line \d+: 'steps' is given twice.*seed: -1"):
        read_recipe(recipe_file(plain_text + "steps: 1\nseed: -1\nsteps: 2\n"))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "recipe.yaml"
    write_recipe(path, FULL)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_recipe(path, replace(FULL, steps=8))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.yaml"]


def test_embedded_parts_are_located(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "MODEL", tmp_path)
    with pytest.raises(InputError, match="holds no embedded model"):
        shapes.locate("shapes")
    (tmp_path / "loras").mkdir()
    (tmp_path / "realism").mkdir()
    (tmp_path / "model_index.json").touch()
    (tmp_path / "loras" / "edit.safetensors").touch()
    assert shapes.locate("shapes") == tmp_path
    assert shapes.locate("shapes:edit") == tmp_path / "loras" / "edit.safetensors"
    assert shapes.locate("shapes:realism") == tmp_path / "realism"
    assert str(shapes.locate("other/file.safetensors")) == "other/file.safetensors"
    with pytest.raises(
        InputError, match=r"did you mean 'shapes:edit'\?\): there are shapes, shapes:edit, shapes:realism"
    ):
        shapes.locate("shapes:edti")
    with pytest.raises(InputError):
        shapes.locate("shapes:../../secret")


def test_a_learned_routers_file_is_found_like_a_routes(recipe_file, plain_text, tmp_path):
    (tmp_path / "more.csv").touch()
    recipe = read_recipe(recipe_file(plain_text + "learned_router: {bucket: {csv: more.csv}}\n"), ["steps=7"])
    assert recipe.learned_router == LearnedRouter(Bucket(csv=str(tmp_path / "more.csv")), 0.25)
    assert recipe.buckets() == (*(route.bucket for route in recipe.routes), recipe.learned_router.bucket)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"bucket": {}}, "learned_router.bucket: give exactly one of csv, prompts, shapes, encoded, stream, not none"),
        ({"holdout": 0.5}, "learned_router.bucket: it is required"),
        ({"bucket": {"prompts": ["a"]}, "holdout": 0}, "learned_router.holdout: 0.0 is out of range"),
        ({"bucket": {"prompts": ["a"]}, "holdout": 1}, "learned_router.holdout: 1.0 is out of range"),
        ({"bucket": {"prompts": ["a"]}}, "learned_router: it needs at least two routes to choose from"),
    ],
)
def test_faults_of_a_learned_router(given, told):
    assert any(line.startswith(told) for line in faults_of(base(learned_router=given)))


def test_a_method_that_takes_the_query_gets_the_recipes(monkeypatch):
    """Of a row that is added too: what it takes is a property of the row."""
    monkeypatch.setitem(METHODS, "new", replace(METHODS["danceopd"], objective=OdeKl()))
    monkeypatch.setitem(METHODS, "whole", replace(METHODS["new"], takes_query=False))
    recipe = parse_recipe(base(method="new", query={"bias": "mid", "k": 3}, ode_kl_weight="uniform"))
    built = build_method(recipe)
    assert built.query == Beta(5, 5, 3)
    assert built.objective == OdeKl("uniform")
    assert build_method(parse_recipe(base(method="whole"))).query == METHODS["danceopd"].query
    (line,) = faults_of(base(method="whole", query={"bias": "mid"}))
    assert line == "query: whole queries every state: leave it out"
    (line,) = faults_of(base(method="new", eta=0.5))
    assert line == "eta: new has no such setting, only flowopd: leave it out"
