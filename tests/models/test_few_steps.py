"""Which models were distilled to few steps is told by the settings in which theirs differ from their base's."""

import json

import pytest

from danceopd_core.models import registry
from danceopd_core.models.few_steps import own_steps
from danceopd_core.shapes import MODEL


def described(folder, pipeline, scheduler, network, **index):
    """The settings of a folder, without weights."""
    for name, settings in {
        "model_index.json": {"_class_name": pipeline, **index},
        "scheduler/scheduler_config.json": scheduler,
        "transformer/config.json": network,
    }.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("pipeline", "scheduler", "network", "index", "steps"),
    [
        ("ZImagePipeline", {"shift": 3.0, "use_dynamic_shifting": False}, {"dim": 3840}, {}, 8),  # Turbo
        ("ZImagePipeline", {"shift": 6.0, "use_dynamic_shifting": False}, {"dim": 3840}, {}, None),  # the base
        ("ZImagePipeline", {"shift": 3.0, "use_dynamic_shifting": True}, {"dim": 3840}, {}, None),
        ("ZImagePipeline", {"shift": 3.0}, {"dim": 256}, {}, None),  # as the embedded model
        ("FluxPipeline", {"shift": 1.0, "use_dynamic_shifting": False}, {"guidance_embeds": False}, {}, 4),  # schnell
        ("FluxPipeline", {"shift": 3.0, "use_dynamic_shifting": True}, {"guidance_embeds": True}, {}, None),  # dev
        ("Flux2KleinPipeline", {"shift": 3.0}, {}, {"is_distilled": True}, 4),
        ("Krea2Pipeline", {"shift": 1.0}, {}, {"is_distilled": True}, 8),  # Turbo
        ("Krea2Pipeline", {"shift": 1.0}, {}, {"is_distilled": False}, None),  # Raw
        ("QwenImage21Pipeline", {"shift": 1.0}, {}, {"sample_sigmas": [1.0, 0.9, 0.4]}, 3),  # Turbo, of 8
        ("QwenImage21Pipeline", {"shift": 1.0}, {}, {"sample_sigmas": None}, None),
        ("StableDiffusion3Pipeline", {"shift": 3.0}, {}, {}, None),
        ("QwenImagePipeline", {}, {}, {}, None),
    ],
)
def test_the_settings_tell_a_models_own_few_steps(tmp_path, monkeypatch, pipeline, scheduler, network, index, steps):
    monkeypatch.setattr(registry, "at_least", lambda package, release: True)  # an old diffusers may read settings
    assert own_steps(described(tmp_path, pipeline, scheduler, network, **index)) == steps


def test_the_embedded_model_has_many_steps():
    assert own_steps(MODEL) is None
