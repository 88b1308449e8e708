"""The world and its judge: what the renderer draws is read back, what is wrong is caught."""

from __future__ import annotations

import numpy as np
import pytest

from danceopd_core.shapes.judge import detect, score_caption, score_edit, score_style
from danceopd_core.shapes.language import EDIT, T2I, Caption, is_held_out, items, sample_caption, sample_edit
from danceopd_core.shapes.render import render
from danceopd_core.shapes.scene import BACKGROUNDS, COLOURS, SHAPES, STYLES, ObjectSpec, Scene, SceneObject

SIZES = (64, 96, 128)


def noisy(picture: np.ndarray, rng: np.random.Generator, deviation: float = 8) -> np.ndarray:
    return np.clip(picture + rng.normal(0, deviation, picture.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_and_colour_is_read_back(shape, style):
    for colour in COLOURS:
        for background in BACKGROUNDS:
            obj = SceneObject(shape, colour, 0.45, 0.55, 0.11)
            scene = detect(render(Scene((obj,), background, style), 64))
            (seen,) = scene.objects
            assert (seen.shape, seen.colour, scene.background) == (shape, colour, background)
            assert np.hypot(seen.x - obj.x, seen.y - obj.y) < 0.03
            assert seen.radius == pytest.approx(obj.radius, rel=0.2)


@pytest.mark.parametrize("category", T2I)
@pytest.mark.parametrize("size", SIZES)
def test_right_pictures_of_captions_are_right(category, size):
    rng = np.random.default_rng(1)
    for caption in items((category,), 10, seed=2):
        for style in STYLES:
            picture = render(caption.scene(rng, style), size)
            assert score_caption(caption, picture) == 1, caption.text
            assert score_style(style, picture) == 1


@pytest.mark.parametrize("category", EDIT)
@pytest.mark.parametrize("size", SIZES)
def test_the_ground_truth_of_an_edit_is_right_and_its_source_is_not(category, size):
    for edit in items((category,), 10, seed=2):
        assert score_edit(edit, render(edit.target, size)) == 1, edit.text
        assert score_edit(edit, render(edit.source, size)) == 0, edit.text


def test_small_noise_is_forgiven():
    rng = np.random.default_rng(3)
    captions = [score_caption(c, noisy(render(c.scene(rng)), rng)) for c in items(T2I, 15, seed=4)]
    edits = [score_edit(e, noisy(render(e.target), rng)) for e in items(EDIT, 15, seed=4)]
    assert np.mean(captions) > 0.97
    assert np.mean(edits) > 0.97


def test_wrong_pictures_are_caught():
    circle = SceneObject("circle", "red", 0.3, 0.3, 0.12)
    square = SceneObject("square", "blue", 0.7, 0.7, 0.12)
    caption = Caption(
        "colour_attribute", "", (ObjectSpec("circle", "red"), ObjectSpec("square", "blue")), "white", relation="left of"
    )

    def score(*objects: SceneObject, background: str = "white") -> float:
        return score_caption(caption, render(Scene(objects, background)))

    assert score(circle, square) == 1
    assert score(circle) == 0
    assert score(circle, square, SceneObject("star", "green", 0.7, 0.25, 0.1)) == 0
    assert score(circle._replace(colour="blue"), square._replace(colour="red")) == 0
    assert score(circle._replace(shape="diamond"), square) == 0
    assert score(circle, square, background="black") == 0
    assert score(circle._replace(x=0.7), square._replace(x=0.3)) == 0


def test_damage_to_the_rest_costs_preservation():
    edit = next(e for e in items(("recolour",), 40, seed=5) if len(e.source.objects) == 3)
    other = next(t for t in edit.target.objects if t.shape != edit.edited.shape or t.x != edit.edited.x)
    whole = score_edit(edit, render(edit.target))
    moved = score_edit(
        edit, render(edit.target.swapped(other, other._replace(colour="cyan" if other.colour != "cyan" else "red")))
    )
    lost = score_edit(edit, render(edit.target.without(other)))
    assert whole == 1
    assert 0 < lost < 1
    assert 0 < moved < lost


def test_noise_alone_scores_nothing():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert all(score_caption(c, picture) == 0 for c in items(T2I, 3, seed=1))
    assert np.mean([score_edit(e, picture) for e in items(EDIT, 3, seed=1)]) < 0.3


@pytest.mark.parametrize("category", T2I + EDIT)
def test_each_category_has_256_held_out_items(category):
    found = items((category,), 256, seed=0)
    assert len({item.key for item in found}) == 256
    assert all(is_held_out(item) for item in found)


def test_held_out_items_never_occur_in_training():
    held = {i.key for kind in (T2I, EDIT) for i in items(kind, 64, seed=0)}
    train = {i.key for kind in (T2I, EDIT) for i in items(kind, 64, seed=0, held_out=False)}
    assert not held & train


def test_word_order_does_not_smuggle_a_held_out_caption_into_training():
    def caption(first: str, second: str, relation: str | None) -> Caption:
        return Caption("position" if relation else "two", "", (ObjectSpec(first), ObjectSpec(second)), None, relation)

    assert caption("star", "cross", "left of").key == caption("cross", "star", "right of").key
    assert caption("star", "cross", "above").key == caption("cross", "star", "below").key
    assert caption("star", "cross", None).key == caption("cross", "star", None).key


def test_items_repeat_from_their_seed():
    first, again, other = (items(EDIT, 4, seed=s) for s in (1, 1, 2))
    assert [e.text for e in first] == [e.text for e in again] != [e.text for e in other]
    assert all((render(a.source) == render(b.source)).all() for a, b in zip(first, again, strict=True))


def test_scenes_hold_what_their_text_says():
    rng = np.random.default_rng(7)
    for _ in range(200):
        caption = sample_caption(rng)
        objects = caption.scene(rng).objects
        assert len(objects) == len(caption.specs)
        edit = sample_edit(rng)
        assert len({(t.shape, t.colour) for t in edit.source.objects}) == len(edit.source.objects)


def test_things_stand_in_rows_in_the_order_of_their_names_unless_loose():
    rng = np.random.default_rng(8)
    captions = [c for c in (sample_caption(rng) for _ in range(300)) if len(c.specs) > 1]
    for caption in captions:
        first, second, *_ = caption.scene(rng).objects
        if caption.relation in ("above", "below"):
            assert first.x == second.x
        else:
            assert first.y == second.y
            assert caption.relation or first.x < second.x
    assert any(len({t.y for t in c.scene(rng, free_layout=True).objects[:2]}) == 2 for c in captions if not c.relation)
