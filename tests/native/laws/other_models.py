# ruff: noqa: PT017 (run without pytest)
"""Teachers of one world for students of the other: diffusers folders and MODELs of ComfyUI, both ways."""

import comfy.model_management as management
import torch
from pack.danceopd_core.errors import InputError
from pack.danceopd_core.models.registry import open_backbone
from pack.danceopd_core.recipe.from_graph import recipe_of
from pack.danceopd_core.recipe.graph import FieldSpec, ModelSpec, PromptSpec, RouteSpec, RoutesSpec
from pack.danceopd_core.recipe.schema import Bucket, Student, Teacher
from pack.danceopd_core.runs.plans.opening import open_teachers
from pack.danceopd_core.runs.plans.other_models import check_latents
from pack.danceopd_core.runs.plans.sources import graph_source
from pack.danceopd_core.runs.training.session import open_session
from pack.danceopd_core.shapes import locate
from pack.danceopd_core.shapes.score import HeldOutSet
from pack.nodes.native.shapes import shapes_clip, shapes_model, shapes_vae
from pack.nodes.native.source import NativeModel
from pack_laws.tiny_models import fresh_backbone

with torch.inference_mode():  # as a loader node runs
    LIVE = NativeModel(shapes_model(), shapes_clip(), shapes_vae(), "0123456789abcdef")
NATIVE, FOLDER = ModelSpec(LIVE.name, LIVE.dtype, live=LIVE), ModelSpec("shapes", "float32")
EDIT = Teacher(lora="shapes:edit")


def session_of(model, field, kind, **settings):
    """A run over `model` with one route."""
    routes = RoutesSpec((RouteSpec(field, PromptSpec(Bucket(shapes=kind, count=4), kind)),))
    widgets = {
        "steps": 2, "batch": 2, "accumulate": 1, "rollout_steps": 2, "width": 64, "height": 64, "device": "cpu",
        "out": "/nowhere-danceopd/run", **settings,
    }  # fmt: skip
    recipe = recipe_of(routes, Student(start="shapes:edit"), widgets)
    return open_session(recipe, source=graph_source(model, [field]))


def trained(session):
    management.in_training = True
    try:
        return [result.loss for result in session.trainer]
    finally:
        management.in_training = False


def question(session):
    (route,) = session.trainer.routes
    x = torch.randn(2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    return route, x, torch.tensor([0.8, 0.3]), route.samples.select([0, 1])


def test_a_diffusers_teacher_is_itself_for_a_native_student():
    field = FieldSpec(FOLDER, "edit", ((EDIT, 1.0),)).guided(2.0, "dull").over(NATIVE)
    session = session_of(NATIVE, field, "recolour")
    route, x, sigma, cond = question(session)
    home = open_backbone(locate("shapes"))
    _, fields = open_teachers({"edit": Teacher(lora="shapes:edit", guidance=2.0, negative="dull")}, home)
    items = session.plan.items(session.recipe.routes[0].bucket)[:2]
    sources = [[torch.from_numpy(item.source.copy()).float() / 255] for item in items]
    expected = fields["edit"](x, sigma, home.encode([item.prompt for item in items], sources, ["dull"]))
    assert torch.equal(route.teacher(x, sigma, cond), expected)
    assert all(loss > 0 for loss in trained(session))
    assert any(up.any() for up in session.adapters.student().up.values())


def test_a_native_teacher_is_itself_for_a_diffusers_student():
    field = FieldSpec(NATIVE, "edit", ((EDIT, 1.0),)).over(FOLDER)
    session = session_of(FOLDER, field, "recolour")
    route, x, sigma, cond = question(session)
    backbone = graph_source(NATIVE, []).open(torch.float32, "cpu")
    weights = graph_source(NATIVE, []).weights
    _, fields = open_teachers({"edit": EDIT}, backbone, weights=weights)
    items = session.plan.items(session.recipe.routes[0].bucket)[:2]
    sources = [[torch.from_numpy(item.source.copy()).float() / 255] for item in items]
    expected = fields["edit"](x, sigma, backbone.encode([item.prompt for item in items], sources))
    assert torch.equal(route.teacher(x, sigma, cond), expected)
    assert all(loss > 0 for loss in trained(session))


def test_text_to_image_means_the_same_in_both_worlds_and_edits_do_not():
    """Why a LoRA has to be moved: the student that is the very same LoRA has the teacher's answer to texts only."""
    errors = {}
    for kind in ("colour", "recolour"):
        field = FieldSpec(FOLDER, "edit", ((EDIT, 1.0),)).over(NATIVE)
        session = session_of(NATIVE, field, kind)
        errors[kind] = next(iter(session.trainer.validate().values()))
    assert errors["colour"] < 1e-5
    assert errors["recolour"] > 0.01


def test_another_latent_space_is_refused():
    flux = fresh_backbone("Flux")
    try:
        check_latents(open_backbone(locate("shapes")), flux, 64, 64)
    except InputError as error:
        assert "latents of 16 x 8 x 8" in str(error)
    else:
        raise AssertionError("it was taken")


def test_the_embedded_model_in_fewer_bits_says_nearly_the_same():
    exact = LIVE.source({}, {}).open(torch.float32, "cpu")
    held_out = HeldOutSet.of(exact, {("colour", "recolour"): 1}, 7)
    x = torch.randn(2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.8, 0.3])
    with torch.no_grad():
        expected = exact.velocity(x, sigma, held_out.samples)
        for weights, tolerance in (("bfloat16", 0.02), ("fp8", 0.1)):
            with torch.inference_mode():
                model = shapes_model(weights=weights)
            live = NativeModel(model, LIVE.clip, LIVE.vae, weights)
            backbone = live.source({}, {}).open(torch.bfloat16, "cpu")
            layer = backbone.network.get_submodule("layers.0.attention.qkv")
            assert (live.dtype, getattr(layer, "quant_format", None)) == (
                "bfloat16", "float8_e4m3fn" if weights == "fp8" else None,
            )  # fmt: skip
            answer = backbone.velocity(x, sigma, held_out.samples)
            distance = float((answer - expected).norm() / expected.norm())
            print(weights, distance)
            assert 0 < distance < tolerance, weights


def test_a_text_encoder_that_does_not_belong_to_a_teachers_own_model_is_said_of_that_teacher():
    """Before training, as for the run's own model."""
    with torch.inference_mode():
        clip = shapes_clip()
    encode = clip.encode_from_tokens_scheduled
    clip.encode_from_tokens_scheduled = lambda *args, **named: [
        [torch.cat([text, text], -1), extras] for text, extras in encode(*args, **named)
    ]
    live = NativeModel(LIVE.patcher, clip, LIVE.vae, "fedcba9876543210")
    spec = ModelSpec(live.name, live.dtype, live=live)
    try:
        session_of(FOLDER, FieldSpec(spec, "edit", ((EDIT, 1.0),)).over(FOLDER), "colour")
    except InputError as error:
        (fault,) = error.faults
        assert fault.setting == "teachers.edit of Shapes.model"
        assert "its layer cap_embedder" in fault.message
    else:
        raise AssertionError("it was taken")
