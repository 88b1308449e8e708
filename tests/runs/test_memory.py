"""Planned memory is what the opened parts hold."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import accumulate

import pytest
import torch
from safetensors.torch import save_file

from danceopd_core.algorithm.fields import Conditioning, Sample
from danceopd_core.cli.parser import main
from danceopd_core.errors import InputError
from danceopd_core.models import hub
from danceopd_core.models.loading import frozen
from danceopd_core.models.registry import FAMILIES, default_targets
from danceopd_core.recipe.io import write_recipe
from danceopd_core.recipe.schema import Bucket, Optimizer, Recipe, Route, Student, Teacher
from danceopd_core.runs.budget.memory import GIB, planned_memory
from danceopd_core.runs.budget.released import released_estimate
from danceopd_core.runs.budget.walk_inputs import INPUTS, Pass, shapeless_lora, update_bytes
from danceopd_core.weights.adapters import Adapters
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora import fresh_lora
from danceopd_core.weights.lora_io import write_lora

from ..tiny import randomize
from ..versions import needs_pipeline


def elements(module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture
def recipe(zimage_folder, opened_zimage, tmp_path) -> Recipe:
    shapes = linear_shapes(opened_zimage.network)
    lora = fresh_lora(shapes, 3, 3, opened_zimage.default_targets, torch.Generator())
    write_lora(tmp_path / "lora.safetensors", lora)
    save_file(opened_zimage.network.state_dict(), tmp_path / "full.safetensors")
    full = Teacher(checkpoint=str(tmp_path / "full.safetensors"))
    return Recipe(
        str(zimage_folder),
        (Route("a", "one", Bucket(prompts=("a",))),),
        {"one": full, "two": full, "three": Teacher(lora=str(tmp_path / "lora.safetensors"))},
        student=Student(rank=3),
        dtype="bfloat16",
    )


def test_it_counts_what_is_opened(recipe, opened_zimage, tmp_path):
    found, base = planned_memory(recipe), elements(opened_zimage.network)
    assert found.base == 2 * base
    assert found.checkpoints == 2 * found.base
    assert found.waiting == 0
    assert found.encoders == 2 * (elements(opened_zimage.text_encoder) + elements(opened_zimage.vae.module))
    assert found.student == 8 * found.loras  # weights, gradient, two moments: 16 bytes for 2
    started = replace(recipe, student=Student(str(tmp_path / "lora.safetensors")), optimizer=Optimizer(ema=0.9))
    assert planned_memory(started).student == 10 * found.loras


def test_offloaded_checkpoints_wait_and_one_is_on_the_device(recipe):
    found, stay = planned_memory(replace(recipe, offload=True)), planned_memory(recipe)
    assert found.waiting == stay.checkpoints == 2 * found.checkpoints
    assert stay.device - found.device == found.base


def test_the_command_reads_a_recipe_and_refuses_what_is_not_there(recipe, tmp_path, capsys):
    write_recipe(tmp_path / "recipe.yaml", recipe)
    assert main(["memory", str(tmp_path / "recipe.yaml"), "offload=true"]) == 0
    assert "GiB  peak of an update" in capsys.readouterr().out
    assert main(["memory", str(tmp_path / "recipe.yaml"), "--free", "1"]) == 0
    assert "memory: 0.0 GiB at the peak, 1.0 GiB free: gradient checkpointing" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"model_index\.json"):
        planned_memory(replace(recipe, model=str(tmp_path)))


# GiB of base, teachers, student with Adam, activations without and with checkpointing: simulated on fake CUDA tensors
# by another program, with real steps of the trainer in bfloat16 at 1024 x 1024 pixels and batch 1.
SIMULATED = {
    ("sd35m", 16): (4.6, 0.04, 0.13, 7.3, 0.6),
    ("sd35m", 128): (4.6, 0.36, 1.07, 7.6, 0.8),
    ("zimage", 16): (11.5, 0.15, 0.44, 34.7, 2.4),
    ("zimage", 128): (11.5, 1.18, 3.55, 35.4, 2.5),
    ("flux", 16): (22.2, 0.20, 0.60, 24.6, 2.3),
    ("flux", 128): (22.2, 1.61, 4.84, 25.6, 3.2),
    ("qwen", 16): (38.1, 0.29, 0.86, 32.6, 2.2),
    ("qwen", 128): (38.1, 2.29, 6.86, 33.9, 4.6),
}


@pytest.mark.parametrize(
    ("name", "rank"), [pytest.param(*key, marks=[] if key[0] == "sd35m" else pytest.mark.long) for key in SIMULATED]
)
def test_the_peak_of_a_released_model_is_that_of_simulated_steps(name, rank):
    base, loras, student, kept, checkpointed = SIMULATED[name, rank]
    found = released_estimate(name, rank)
    for checkpointing, activations in ((True, checkpointed), (False, kept)):
        memory = found.memory(found.recipe, checkpointing, 1)
        assert memory.update / GIB == pytest.approx(base + loras + student + activations, rel=0.05)
        assert memory.base / GIB == pytest.approx(base, rel=0.02)
        assert (memory.working + memory.gradients) / GIB == pytest.approx(activations, rel=0.1)


HEADS = {"attention_head_dim": 64, "num_attention_heads": 8}
WIDE = {
    "StableDiffusion3Pipeline": (
        "SD3Transformer2DModel", 16, 8,
        {**HEADS, "sample_size": 32, "num_layers": 3, "joint_attention_dim": 512, "caption_projection_dim": 512,
         "pooled_projection_dim": 256, "dual_attention_layers": (0,), "qk_norm": "rms_norm"},
    ),
    "ZImagePipeline": (
        "ZImageTransformer2DModel", 16, 8,
        {"dim": 512, "n_layers": 3, "n_refiner_layers": 1, "n_heads": 4, "n_kv_heads": 4, "cap_feat_dim": 512},
    ),
    "Krea2Pipeline": (
        "Krea2Transformer2DModel", 16, 8,
        {**HEADS, "num_layers": 3, "num_key_value_heads": 4, "intermediate_size": 1024, "text_hidden_dim": 512,
         "num_text_layers": 2, "text_num_attention_heads": 8, "text_num_key_value_heads": 8,
         "text_intermediate_size": 1024, "axes_dims_rope": (16, 24, 24)},
    ),
    "QwenImage21Pipeline": (
        "QwenImage21Transformer2DModel", 64, 16,
        {**HEADS, "num_layers": 3, "context_in_dim": 512, "axes_dims_rope": (16, 24, 24)},
    ),
}  # fmt: skip
"""By pipeline, networks of real classes that are large beside what a pass keeps of single numbers: the class, channels
and compression of latents, settings."""


def wide(pipeline: str, device: str) -> Pass:
    import diffusers

    cls, channels, factor, settings = WIDE[pipeline]
    with torch.device(device):
        network = getattr(diffusers, cls)(**settings)
    return Pass(pipeline, frozen(network, torch.float32), channels, factor, torch.float32, 256, 256)


def measured(run) -> int:
    """The most bytes that the CPU's allocator has given out at once during a call, beside those before it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(sizes, initial=0))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("pipeline", [pytest.param(name, marks=needs_pipeline(name)) for name in WIDE])
def test_the_walk_is_near_the_peak_measured_on_the_cpu(pipeline, checkpointing):
    of, real = wide(pipeline, "meta"), wide(pipeline, "cpu")
    lora = shapeless_lora(linear_shapes(of.network), 8, default_targets(pipeline))
    walked = update_bytes(of, lora, checkpointing)
    adapters = Adapters(randomize(real.network, 0))
    generator = torch.Generator().manual_seed(0)
    adapters.start_student(fresh_lora(adapters.shapes, 8, 8, default_targets(pipeline), generator))
    if checkpointing:
        real.network.enable_gradient_checkpointing()
    family = next(name for name, family in FAMILIES.items() if pipeline in family.pipelines)
    backbone, values = INPUTS[family](real)
    values = {name: torch.zeros(value.shape) for name, value in values.items()}
    cond = Conditioning((Sample(values),))
    noise, sigma = torch.randn(1, real.channels, 256 // real.factor, 256 // real.factor), torch.ones(1)
    found = measured(lambda: backbone(noise, sigma, cond).square().mean().backward())
    assert walked == pytest.approx(found, rel=0.1)


def test_base_loras_and_components_are_counted(recipe, opened_zimage, tmp_path):
    plain = planned_memory(recipe)
    over = planned_memory(replace(recipe, student=Student(rank=3, base_lora=str(tmp_path / "lora.safetensors"))))
    assert over.loras - plain.loras == 4 * plain.student // 16
    save_file(opened_zimage.vae.module.state_dict(), tmp_path / "vae.safetensors")
    other = planned_memory(replace(recipe, components={"vae": str(tmp_path / "vae.safetensors")}))
    assert other.encoders == plain.encoders


def test_a_hugging_face_id_needs_its_configurations_only(recipe, zimage_folder, tmp_path, monkeypatch):
    bare = tmp_path / "bare"
    shutil.copytree(zimage_folder, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    asked = []

    def fetched(name, without=()):
        asked.append((name, tuple(without)))
        return bare

    monkeypatch.setattr(hub, "fetched", fetched)
    found, here = planned_memory(replace(recipe, model="owner/tiny")), planned_memory(recipe)
    assert asked[0][0] == "owner/tiny"
    assert {"transformer", "vae", "text_encoder", "text_encoder_2"} <= set(asked[0][1])
    assert found.update == here.update
    assert found.encoders == here.encoders


def test_an_edit_counts_its_source_picture(recipe, csv_file, picture_file):
    picture_file("source.png")
    edits = csv_file("prompt,source_image", "make it red,source.png")
    there = replace(recipe, routes=(Route("a", "one", Bucket(csv=str(edits))),))
    assert planned_memory(there).working > 1.2 * planned_memory(recipe).working
    assert planned_memory(there).encoding > 0 == planned_memory(recipe).encoding


def test_quantised_layers_keep_what_they_dequantised_unless_checkpointed(recipe):
    plain = [planned_memory(replace(recipe, gradient_checkpointing=on)) for on in (True, False)]
    int8 = [planned_memory(replace(recipe, gradient_checkpointing=on, quantise="int8")) for on in (True, False)]
    kept = [one.working - other.working for one, other in zip(int8, plain, strict=True)]
    assert 0 < kept[0] < kept[1] / 2


def test_memory_wants_a_recipe_or_a_released_model(tmp_path, capsys):
    assert main(["memory"]) == 2
    assert main(["memory", str(tmp_path / "r.yaml"), "--like", "zimage"]) == 2
    assert main(["memory", "--like", "zimag"]) == 2
    assert "did you mean 'zimage'?" in capsys.readouterr().err
