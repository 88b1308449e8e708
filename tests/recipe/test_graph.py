"""What the edges carry, and the recipe that becomes of it."""

import json
from pathlib import Path

import pytest

from danceopd_core.errors import Fault, InputError
from danceopd_core.recipe import from_graph as recipes
from danceopd_core.recipe import graph as specs
from danceopd_core.recipe import schema as core
from danceopd_core.weights.adapters import STUDENT

ROOT = Path(__file__).parent.parent.parent
MODEL = specs.ModelSpec("shapes", "float32")
Teacher = core.Teacher


def field(label="base", **teacher):
    return specs.FieldSpec(MODEL, label, ((Teacher(**teacher), 1.0),))


def routes(*parts, router="weighted"):
    prompts = specs.PromptSpec(core.Bucket(prompts=("a",)), "prompts")
    return specs.RoutesSpec(tuple(specs.RouteSpec(f, prompts, w) for f, w in parts), router)


def recipe(found, student=None, more="", **settings):
    return recipes.recipe_of(found, student or core.Student(), {"width": 64, "height": 64, **settings}, more)


def test_guidance_of_a_mix_is_the_mix_of_the_guided():
    both = field().mixed(field("edit", lora="e"), 0.25).guided(3.0, "bad")
    assert [(t.guidance, t.negative, w) for t, w in both.parts] == [(3.0, "bad", 0.75), (3.0, "bad", 0.25)]


def test_a_field_is_guided_once():
    with pytest.raises(InputError, match="already has guidance"):
        field().guided(2.0, "").guided(2.0, "")


def test_guidance_of_one_is_the_field_itself():
    assert field().guided(1.0, "x") == field()


def test_a_mix_of_mixes_still_sums_to_one():
    mix = field().mixed(field("e", lora="e"), 0.5).mixed(field("g", lora="g"), 0.5)
    assert {t.lora: w for t, w in mix.parts} == {None: 0.25, "e": 0.25, "g": 0.5}


def test_a_field_mixed_with_itself_is_one_teacher():
    assert field().mixed(field(), 0.3).parts == ((Teacher(), 1.0),)


def test_a_field_mixed_with_itself_many_times_stays_small():
    made = field()
    for _ in range(60):
        made = made.mixed(made, 0.5)
    assert made.parts == ((Teacher(), 1.0),)
    assert len(made.label) < 300


def test_fields_of_two_models_do_not_meet():
    other = specs.FieldSpec(specs.ModelSpec("/m", "float32"), "base", ((Teacher(), 1.0),))
    with pytest.raises(InputError, match="different models"):
        field().mixed(other, 0.5)
    with pytest.raises(InputError, match="different models"):
        recipe(routes((field(), 1.0), (other, 1.0)))


def test_shares_follow_the_weights_where_the_router_heeds_them():
    parts = ((field(), 3.0), (field("edit", lora="e"), 1.0))
    assert routes(*parts).shares() == (0.75, 0.25)
    assert routes(*parts, router="all").shares() == (0.5, 0.5)
    with pytest.raises(InputError, match="weight"):
        routes((field(), 0.0)).shares()


def test_one_teacher_of_two_routes_is_opened_once():
    made = recipe(routes((field(), 1.0), (field(), 2.0)))
    assert set(made.teachers) == {"base"}
    assert [route.teacher for route in made.routes] == ["base", "base"]
    assert len({route.name for route in made.routes}) == 2


def test_teachers_of_one_label_keep_their_names_apart():
    made = recipe(routes((field(lora="a/edit.safetensors"), 1.0), (field(lora="b/edit.safetensors"), 1.0)))
    assert [t.lora for t in made.teachers.values()] == ["a/edit.safetensors", "b/edit.safetensors"]


def test_no_teacher_takes_the_name_of_the_student():
    made = recipe(routes((field(lora="student.safetensors"), 1.0)))
    assert STUDENT not in made.teachers


def test_a_mixed_field_becomes_a_weighted_route():
    made = recipe(routes((field().mixed(field("edit", lora="edit.safetensors"), 0.25), 1.0)))
    assert made.routes[0].teacher == {"base": 0.75, "edit": 0.25}


def test_a_models_transformer_file_is_a_component_and_another_model():
    file = specs.ModelSpec("shapes", "float32", "/m.safetensors")
    other = specs.FieldSpec(file, "base", ((Teacher(), 1.0),))
    assert recipe(routes((other, 1.0))).components == {"transformer": "/m.safetensors"}
    assert recipe(routes((field(), 1.0))).components == {}
    with pytest.raises(InputError, match="different models"):
        field().mixed(other, 0.5)


def test_a_quantised_model_is_another_model_and_its_faults_name_the_widget():
    small = specs.ModelSpec("shapes", "float32", quantise="int8")
    other = specs.FieldSpec(small, "base", ((Teacher(), 1.0),))
    assert recipe(routes((other, 1.0))).quantise == "int8"
    assert recipe(routes((field(), 1.0))).quantise is None
    with pytest.raises(InputError, match="different models"):
        field().mixed(other, 0.5)
    full = specs.FieldSpec(small, "full", ((Teacher("/full.safetensors"), 1.0),))
    with pytest.raises(InputError, match="Load Flow Model, quantise: a full checkpoint"):
        recipe(routes((full, 1.0)))


def test_a_range_of_sigma_wins_over_the_bias_of_the_widget():
    found = routes((field(), 1.0))
    assert recipe(found, query={"bias": "mid", "k": 1, "sigma": [0.1, 0.4]}).query.sigma == (0.1, 0.4)
    made = recipe(found, more="query.sigma=[0.1, 0.4]", query={"bias": "mid", "k": 1})
    assert (made.query.sigma, made.query.bias) == ((0.1, 0.4), "low")
    assert recipe(found, query={"bias": "mid", "k": 1, "sigma": None}).query.bias == "mid"
    with pytest.raises(InputError, match="not both"):  # both are asked for by name
        recipe(found, more="query.sigma=[0.1, 0.4]\nquery.bias=mid")


def test_more_settings_reach_the_recipe_but_no_file():
    made = recipe(routes((field(), 1.0)), more="optimizer.clip=0.5\n\nquery.sigma=[0.1, 0.4]\n")
    assert made.optimizer.clip == 0.5
    assert made.query.sigma == (0.1, 0.4)
    for line in ("out=/tmp/x", "model=/m", "student.start=/x", "teachers.base.lora=/x", "routes[0].bucket.csv=/x"):
        with pytest.raises(InputError, match="more_settings"):
            recipe(routes((field(), 1.0)), more=line)


@pytest.mark.parametrize(
    ("settings", "widget"),
    [
        ({"optimizer": {"lr": -1.0}}, "learning_rate"),
        ({"optimizer": {"warmup": 5}}, "warmup"),
        ({"query": {"k": 99}}, "k"),
        ({"steps": 0}, "steps"),
        ({"sigmas": {"shift": -1.0}}, "shift"),
        ({"query": {"sigma": [0.5, 0.4]}}, "sigma_low and sigma_high"),
        ({"method": "diffusionopd", "query": {"k": 2}}, "bias and k"),
    ],
)
def test_faults_name_the_widget(settings, widget):
    with pytest.raises(InputError, match=rf"(^|\n)\s*{widget}: "):
        recipe(routes((field(), 1.0)), **settings)


def test_several_faults_are_lines_that_name_their_widgets():
    small = specs.FieldSpec(specs.ModelSpec("shapes", "float8"), "base", ((Teacher(strength=2.0), 1.0),))
    with pytest.raises(InputError) as caught:
        recipe(routes((small, 1.0)), core.Student(rank=0), optimizer={"lr": 0.1, "betas": [0.9, 2]})
    assert str(caught.value) == (
        "Student LoRA, rank: 0 is out of range: it must be at least 1 and at most 1000000000\n"
        "  more_settings: optimizer.betas[1]: 2.0 is out of range: it must be at least 0 and below 1\n"
        "  Load Flow Model, dtype: 'float8' is not one of bfloat16, float16, float32 (did you mean 'float32'?)\n"
        "  Teacher Field, strength ('base at 2'): it scales a lora, and the teacher has none: leave it out"
    )


@pytest.mark.parametrize(
    ("setting", "widget"),
    [
        ("optimizer.lr", "learning_rate"),
        ("optimizer.lrr", "more_settings: optimizer.lrr"),
        ("query.sigma[1]", "sigma_low and sigma_high[1]"),
        ("query", "bias and k"),
        ("learned_router.bucket.csv", "Learned Router, unlabelled.csv"),
        ("learned_router", "Learned Router"),
        ("outer", "outer"),
        ("steps", "steps"),
        ("", ""),
    ],
)
def test_the_longest_known_key_gives_the_widget(setting, widget):
    assert recipes.widget(setting) == widget


def test_a_fault_without_a_setting_stays_as_it_is():
    error = InputError("dtype: this is plain text, no setting")
    assert str(recipes.on_widgets(error)) == str(error)


def test_every_widget_is_an_input_of_its_node():
    page = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    inputs = {node["display_name"]: set(node["inputs"]) for node in page.values()}
    shown = (recipes.WIDGETS, recipes.LIVE_WIDGETS, recipes.TEACHER_WIDGETS)
    for named in (*(named for widgets in shown for named in widgets.values()), *recipes.SAME_NAME):
        node, comma, name = named.partition(", ")
        if not comma:
            node, name = (named, "") if named in inputs else ("Train Student LoRA", named.partition(":")[0])
        assert not name or set(name.split(" and ")) <= inputs[node], named


def test_faults_of_more_settings_name_that_widget():
    with pytest.raises(InputError) as caught:
        recipe(routes((field(), 1.0)), more="query.kk=2\nsteps=3\noptimizer.betas=[0.9")
    assert [fault.setting for fault in caught.value.faults] == ["more_settings"] * 3


def test_a_run_is_private_by_the_widget_or_by_an_older_graphs_line():
    def told(more="", **widget):
        return recipe(routes((field(), 1.0)), more=more, **widget).private

    assert (told(), told(private=True), told("private=true", private=False)) == (False, True, True)
    with pytest.raises(InputError, match="more_settings: private=false stands against private"):
        told("private=false", private=True)


def test_a_learned_router_reaches_the_recipe_and_is_one():
    more = specs.PromptSpec(core.Bucket(prompts=("x",)), "prompts")
    two = routes((field(), 1.0), (field("edit", lora="e"), 2.0))
    found = two.taking(more, 0.5)
    assert found.routes == two.routes
    assert recipe(found).learned_router == core.LearnedRouter(more.bucket, 0.5)
    assert recipe(two).learned_router is None
    with pytest.raises(InputError, match="already"):
        found.taking(more, 0.5)
    with pytest.raises(InputError, match="add a route"):
        routes((field(), 1.0)).taking(more, 0.5)
    with pytest.raises(InputError, match=r"Learned Router, holdout: 2\.0 is out of range"):
        recipe(two.taking(more, 2.0))


def test_a_field_of_another_model_keeps_that_model_guidance_and_mixes_included():
    other = specs.ModelSpec("/m", "float32")
    there = specs.FieldSpec(other, "edit", ((Teacher(lora="e"), 0.5), (Teacher(), 0.5))).guided(3.0, "bad")
    taken = there.over(MODEL)
    assert (taken.model, taken.others, taken.label) == (MODEL, (other,), there.label)
    assert {t.model for t, _ in taken.parts} == {"/m"}
    assert [(t.lora, t.guidance, w) for t, w in taken.parts] == [(t.lora, t.guidance, w) for t, w in there.parts]
    mix = field().mixed(specs.FieldSpec(other, "one", ((Teacher(), 1.0),)).over(MODEL), 0.25)
    assert {t.model: w for t, w in mix.parts} == {None: 0.75, "/m": 0.25}
    assert mix.others == (other,)
    found = recipe(routes((taken, 1.0), (mix, 1.0)))
    assert set(found.teachers) == {"e of m x3", "base of m x3", "base", "base of m"}
    assert found.teachers["e of m x3"].model == "/m"


def test_a_field_goes_on_to_a_third_model_and_back_home():
    second, third = specs.ModelSpec("/m", "float32"), specs.ModelSpec("/n", "float32")
    taken = field().over(second).over(third)
    assert ({t.model for t, _ in taken.parts}, taken.others) == ({"shapes"}, (second, MODEL))
    home = taken.over(MODEL)
    assert ({t.model for t, _ in home.parts}, home.others) == ({None}, (third, second))


def test_what_a_recipe_cannot_say_of_a_teachers_model_is_refused():
    with pytest.raises(InputError, match="over this flow model already"):
        field().over(MODEL)
    for spec, message in (
        (specs.ModelSpec("/m", "float32", transformer="/t"), "transformer file"),
        (specs.ModelSpec("/m", "float32", quantise="int8"), "quantises"),
        (specs.ModelSpec("/m", "bfloat16"), "computes in bfloat16 and the student's in float32: choose float32"),
    ):
        with pytest.raises(InputError, match=message):
            specs.FieldSpec(spec, "base", ((Teacher(), 1.0),)).over(MODEL)


def test_a_teachers_own_model_is_found_on_its_node():
    fault = recipes.on_widgets(InputError(faults=[Fault("teachers.edit of m.model", "is not here")])).faults[0]
    assert fault.setting == "Field from Another Model, field ('edit of m')"
    fault = recipes.on_widgets(InputError(faults=[Fault("teachers.model.lora", "is not here")])).faults[0]
    assert fault.setting == "Teacher Field, lora ('model')"
