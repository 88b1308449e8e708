"""What a run encodes: only what it draws, once, and on disk to the same bits as in memory."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from danceopd_core.algorithm.fields import Conditioning
from danceopd_core.data.sample_store import ShardStore
from danceopd_core.recipe.schema import Bucket, Optimizer, Recipe, Route, Student, Teacher
from danceopd_core.runs.encoded import bucket_encoders
from danceopd_core.runs.files import stored_samples
from danceopd_core.runs.files.stored_samples import StoredConditioning
from danceopd_core.runs.training.session import open_session


@pytest.fixture
def on_disk(monkeypatch):
    """Every bucket counts as large."""
    monkeypatch.setattr(stored_samples, "SMALL", 0)
    monkeypatch.setattr(stored_samples, "CHUNK", 3)


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """The prompts that were encoded, as they are."""
    prompts: list[str] = []
    real = bucket_encoders.encode_items

    def spied(backbone, items, *others):
        prompts.extend(item.prompt for item in items)
        return real(backbone, items, *others)

    monkeypatch.setattr(bucket_encoders, "encode_items", spied)
    return prompts


@pytest.fixture
def recipe(zimage_folder, tmp_path, csv_file) -> Recipe:
    pixels = np.random.default_rng(1).integers(0, 256, (7, 40, 48, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    lines = [f"make it number {number},{number}.png,{6 - number}.png" for number in range(7)]
    edits = csv_file("prompt,source_image,target_image", *lines)
    texts = csv_file("prompt,target_image", *(f"a cat number {n},{n % 7}.png" for n in range(9)), name="texts.csv")
    return Recipe(
        model=str(zimage_folder),
        routes=(Route("edits", "base", Bucket(csv=str(edits))), Route("texts", "plain", Bucket(csv=str(texts)))),
        teachers={"base": Teacher(guidance=2.0, negative="ugly"), "plain": Teacher()},
        student=Student(rank=2),
        optimizer=Optimizer(lr=1e-2),
        steps=3,
        batch=2,
        accumulate=2,
        rollout_steps=2,
        router="all",
        width=32,
        height=32,
        dtype="float32",
        device="cpu",
        out=str(tmp_path / "run"),
    )


def trained(recipe: Recipe, cache: str | Path = "off") -> dict[str, torch.Tensor]:
    session = open_session(recipe, cache=cache)
    results = [*session.trainer]
    losses = {f"loss {r.update} {name}": torch.tensor(loss) for r in results for name, loss in r.losses.items()}
    errors = {f"error {name}": torch.tensor(error) for name, error in session.trainer.validate().items()}
    return {**session.adapters.state_dict(), **losses, **errors}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("method", ["danceopd", "offpolicy"])
def test_a_training_from_the_disk_is_that_from_memory_to_the_bit(recipe, method, tmp_path, monkeypatch, encoded):
    recipe = replace(recipe, method=method)
    expected = trained(recipe)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(stored_samples, "SMALL", 0)
    monkeypatch.setattr(stored_samples, "CHUNK", 3)
    assert same(trained(recipe, tmp_path / "cache"), expected)
    assert list(tmp_path.glob("cache/encoded/*/*.safetensors"))
    encoded.clear()
    assert same(trained(recipe, tmp_path / "cache"), expected)
    assert encoded == []


def test_small_buckets_stay_in_memory(recipe, tmp_path):
    trained(recipe, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_only_what_is_drawn_is_encoded_and_each_once(recipe, on_disk, encoded, tmp_path):
    prompts = tuple(f"a dog number {number}" for number in range(500))
    bucket = Bucket(prompts=prompts)
    recipe = replace(recipe, routes=(Route("dogs", "plain", bucket),), teachers={"plain": Teacher()}, router="weighted")
    session = open_session(recipe, cache=tmp_path / "cache")
    samples = session.trainer.routes[0].samples
    assert isinstance(samples, StoredConditioning)
    assert len(samples) == 500
    drawn = [prompts[row] for row in session.trainer.draws.order.rows(0, 0)]
    assert encoded[:2] in (drawn, [drawn[0], drawn[0]])  # in the order drawn; the first tells the size
    assert len(set(encoded)) == 12 + 5  # the samples of three updates, and the rows of validations: a hundredth
    before = len(encoded)
    list(session.trainer)
    session.trainer.validate()
    assert len(encoded) == before
    far = samples.select([499])  # a row that nobody foresaw
    assert torch.equal(far.samples[0].values["text"], session.backbone.encode([prompts[499]]).samples[0].values["text"])


def test_what_the_encoding_depends_on_is_in_its_key(recipe, on_disk, encoded, tmp_path):
    cache = tmp_path / "cache"
    edits = replace(recipe, routes=recipe.routes[:1], teachers={"base": recipe.teachers["base"]}, steps=9)

    def encodes(recipe: Recipe) -> int:
        encoded.clear()
        open_session(recipe, cache=cache)
        return len(set(encoded))

    assert encodes(edits) == 7
    assert encodes(edits) == 0
    assert encodes(replace(edits, seed=5, rollout_steps=3, method="diffusionopd")) == 0
    assert encodes(replace(edits, teachers={"base": Teacher(guidance=3.0, negative="ugly")})) == 0
    assert encodes(replace(edits, teachers={"base": Teacher(guidance=2.0, negative="dull")})) == 7
    assert encodes(replace(edits, width=48)) == 7
    assert encodes(replace(edits, dtype="bfloat16")) == 7
    (tmp_path / "3.png").write_bytes((tmp_path / "4.png").read_bytes())
    assert encodes(edits) == 1
    model = shutil.copytree(edits.model, tmp_path / "model")
    assert encodes(replace(edits, model=str(model))) == 0  # the same files elsewhere
    text = model / "tokenizer" / "tokenizer_config.json"
    text.write_text(text.read_text() + " ")
    assert encodes(replace(edits, model=str(model))) == 7


def test_the_networks_weights_and_loras_are_not_in_the_key(recipe, on_disk, encoded, tmp_path, monkeypatch):
    monkeypatch.setattr("danceopd_core.runs.plans.encoding_identity.SMALL", 2000)
    model = shutil.copytree(recipe.model, tmp_path / "model")
    for weights in [*model.glob("transformer/*.safetensors"), *model.glob("text_encoder/*.safetensors")]:
        os.utime(weights, (10**9, 10**9))
    recipe = replace(recipe, model=str(model))
    open_session(recipe, cache=tmp_path / "cache")
    for part, expected in (("transformer", 0), ("text_encoder", 7 + 9)):
        for weights in model.glob(f"{part}/*.safetensors"):
            os.utime(weights, (10**9 + 1, 10**9 + 1))
        encoded.clear()
        open_session(recipe, cache=tmp_path / "cache")
        assert len(set(encoded)) == expected, part


def test_samples_that_are_removed_while_a_run_goes_on_are_encoded_again(recipe, on_disk, tmp_path):
    expected = trained(recipe)
    session = open_session(recipe, cache=tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    list(session.trainer)
    assert all(torch.equal(value, expected[name]) for name, value in session.adapters.state_dict().items())


def test_without_a_folder_to_write_in_the_samples_stay_in_memory(recipe, on_disk, tmp_path):
    (tmp_path / "cache").write_text("a file")
    told: list[str] = []
    session = open_session(recipe, log=told.append, cache=tmp_path / "cache")
    assert any("stay in memory" in line for line in told)
    assert all(isinstance(route.samples, Conditioning) for route in session.trainer.routes)


def test_the_next_samples_are_read_while_the_present_ones_are_trained_on(recipe, on_disk, tmp_path, monkeypatch):
    by: dict[str, int] = {"thread": 0, "main": 0}
    real = ShardStore.get

    def spied(self, key):
        by["main" if threading.current_thread() is threading.main_thread() else "thread"] += 1
        return real(self, key)

    session = open_session(replace(recipe, router="weighted", steps=4), cache=tmp_path / "cache")
    monkeypatch.setattr(ShardStore, "get", spied)
    list(session.trainer)
    assert by == {"main": 2, "thread": 2 * (2 * 4 - 1)}  # only the first batch was waited for
