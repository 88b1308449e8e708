"""What holds for every model family: it opens whole, its adapters are merges, and every method trains it."""

import copy
from dataclasses import replace

import pytest
import torch

from danceopd_core.algorithm.methods import METHODS, method
from danceopd_core.algorithm.routers import RoundRobin
from danceopd_core.algorithm.trainer import RouteData, Settings, Trainer
from danceopd_core.errors import InputError
from danceopd_core.models.registry import FAMILIES, family_of, open_backbone
from danceopd_core.models.sigma_schedule import folder_sigmas, size_multiple
from danceopd_core.weights.adapters import STUDENT, Adapters
from danceopd_core.weights.lora import fresh_lora

from ..loras import merged, random_lora
from ..tiny import save_zimage
from ..tiny_families import save_flux, save_flux2, save_krea2, save_qwen, save_qwen21, save_sd3
from ..versions import by_family
from .test_qwen import PLUS, small

SAVED = {
    "zimage": save_zimage,
    "sd3": save_sd3,
    "flux": save_flux,
    "kontext": lambda folder: save_flux(folder, "FluxKontextPipeline"),
    "flux2": save_flux2,
    "krea2": save_krea2,
    "qwen": save_qwen,
    "qwen21": save_qwen21,
    "qwen-edit": lambda folder: save_qwen(folder, PLUS),
}
SIZE = 32


@pytest.fixture(scope="module", params=by_family(SAVED))
def folder(request, tmp_path_factory):
    return SAVED[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def opened(folder):
    backbone = open_backbone(folder)
    if backbone.family == "qwen21":
        return replace(backbone, source_area=64**2)
    return small(backbone) if backbone.family == "qwen" else backbone


@pytest.fixture
def backbone(opened):
    """Around a network of the test's own."""
    return opened.with_network(copy.deepcopy(opened.network))


def samples(backbone):
    """A text, and an edit where the model edits."""
    source = torch.rand(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))
    return backbone.encode(["a red cat", "make it blue"], [None, [source] if backbone.max_sources else None])


def test_every_family_is_here(folder, opened):
    assert opened.family in FAMILIES
    assert {name.split("-")[0] for name in SAVED} - {"kontext"} == set(FAMILIES)


def test_the_files_alone_tell_what_the_opened_model_does(folder, opened):
    family, index = family_of(folder)
    assert family.pipelines[index["_class_name"]] == opened.max_sources
    assert size_multiple(folder) == opened.size_multiple
    for size in ((16, 32, 64), (5, 1024, 512)):
        assert folder_sigmas(folder, *size).equal(opened.sigmas(*size))


def test_a_missing_part_is_named(folder):
    parts = [part for part in folder.iterdir() if part.is_dir()]
    if open_backbone(folder).max_sources == 0:
        parts = [part for part in parts if part.name != "processor"]
    assert len(parts) >= 5
    for part in parts:
        hidden = part.rename(folder.parent / "hidden")
        try:
            with pytest.raises(InputError, match=rf"no {part.name} folder"):
                open_backbone(folder)
        finally:
            hidden.rename(part)


def test_the_sigmas_fall_from_one_to_zero_and_leave_the_scheduler_alone(opened):
    before = opened.scheduler.sigmas.clone()
    sigmas = opened.sigmas(5, 64, 96)
    assert sigmas.dtype == torch.float32
    assert len(sigmas) == 6
    assert (sigmas[0], sigmas[-1]) == (1, 0)
    assert (sigmas.diff() < 0).all()
    assert opened.scheduler.sigmas.equal(before)


def test_pictures_and_latents_have_the_declared_shapes(opened):
    height, width = 3 * opened.size_multiple, 2 * opened.size_multiple
    latents = opened.encode_image(torch.rand(2, height, width, 3))
    assert latents.shape == (2, *opened.latent_shape(width, height))
    pictures = opened.decode(latents)
    assert pictures.shape == (2, height, width, 3)
    assert 0 <= pictures.min() <= pictures.max() <= 1
    with pytest.raises(InputError, match=rf"100 x 64 .*multiples of {opened.size_multiple}"):
        opened.latent_shape(100, 64)


def test_a_prompts_encoding_does_not_depend_on_its_batch(opened):
    together = opened.encode(["a red cat", "a much longer prompt than the other"], negatives=["blurry"])
    alone = opened.encode(["a red cat"]).samples[0]
    null = opened.encode(["blurry"]).samples[0]
    for name, value in alone.values.items():
        assert value.equal(together.samples[0].values[name])
        assert null.values[name].equal(together.null("blurry").samples[1].values[name])


def of_float32(module, name):
    """Whether diffusers itself keeps this weight in float32 (Krea 2's norms)."""
    kept = module._keep_in_fp32_modules if module.__module__.startswith("diffusers") else None
    return bool(set(kept or ()) & set(name.split(".")))


def test_a_bfloat16_model_is_frozen_and_its_velocities_are_float32(folder, opened):
    half = open_backbone(folder, torch.bfloat16)
    for part in (half.network, half.vae.module, *half._encoders):
        assert {p.dtype for name, p in part.named_parameters() if not of_float32(part, name)} == {torch.bfloat16}
        assert {p.dtype for name, p in part.named_parameters() if of_float32(part, name)} <= {torch.float32}
        assert not any(p.requires_grad for p in part.parameters())
        assert not part.training
    x = torch.randn(1, *half.latent_shape(SIZE, SIZE), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        v = half.velocity(x, torch.tensor([0.7]), half.encode(["a red cat"]))
    assert v.dtype == torch.float32
    assert v.isfinite().all()
    assert half.encode_image(torch.zeros(1, SIZE, SIZE, 3)).dtype == half.decode(x).dtype == torch.float32


def test_a_teacher_on_the_shared_network_is_its_merge(backbone):
    base = copy.deepcopy(backbone.network)
    adapters = Adapters(backbone.network)
    lora = random_lora(adapters.shapes, 4, seed=1, targets=backbone.default_targets, scale=0.5)
    teacher = adapters.add_teacher(lora)
    adapters.start_student(random_lora(adapters.shapes, 2, seed=2, targets=backbone.default_targets))
    x = torch.randn(2, *backbone.latent_shape(SIZE, SIZE), generator=torch.Generator().manual_seed(3))
    sigma, cond = torch.tensor([0.8, 0.3]), samples(backbone)
    with torch.no_grad():
        bare = backbone.with_network(base).velocity(x, sigma, cond)
        alone = backbone.with_network(merged(base, lora)).velocity(x, sigma, cond)
    shared = adapters.field(backbone.velocity, teacher)(x, sigma, cond)
    torch.testing.assert_close(shared, alone, rtol=0, atol=2e-5)
    assert (alone - bare).abs().max() > 0.05
    assert adapters.field(backbone.velocity, None)(x, sigma, cond).equal(bare)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_the_student_and_nothing_else(backbone, name):
    adapters = Adapters(backbone.network)
    teacher = adapters.add_teacher(random_lora(adapters.shapes, 4, seed=1))
    generator = torch.Generator().manual_seed(4)
    adapters.start_student(fresh_lora(adapters.shapes, 2, 2.0, backbone.default_targets, generator))
    before = {key: p.detach().clone() for key, p in backbone.network.named_parameters()}
    student = {key: factor.clone() for key, factor in adapters.state_dict().items()}
    shape = backbone.latent_shape(SIZE, SIZE)
    cond = samples(backbone)
    x, sigma = torch.randn(2, *shape, generator=generator), torch.tensor([0.9, 0.4])
    taught = adapters.field(backbone.velocity, teacher)(x, sigma, cond)
    lane = RouteData(
        "one", adapters.field(backbone.velocity, teacher), cond, torch.randn(2, *shape, generator=generator)
    )
    trainer = Trainer(
        adapters,
        adapters.field(backbone.velocity, STUDENT),
        [lane],
        RoundRobin(1),
        method(name, group=2) if name == "flowopd" else method(name),
        backbone.sigmas(3, SIZE, SIZE),
        shape,
        Settings(steps=2, batch=2, accumulate=1),
    )
    results = list(trainer)  # a loss that is no number raises
    assert len(results) == 2
    assert all(result.grad_norm > 0 for result in results)
    assert all(p.equal(before[key]) for key, p in backbone.network.named_parameters())
    assert adapters.field(backbone.velocity, teacher)(x, sigma, cond).equal(taught)
    assert any(not factor.equal(student[key]) for key, factor in adapters.state_dict().items())
