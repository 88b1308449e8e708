"""Laws of buckets: the requested number of items, the same from the same seed, none that is held out for evaluation."""

from collections import Counter

import numpy as np
import pytest

from danceopd_core.data.buckets import load_bucket
from danceopd_core.errors import InputError
from danceopd_core.recipe.schema import Bucket
from danceopd_core.shapes.language import EDIT, KINDS, T2I, items


def test_prompts_are_taken_as_they_stand():
    first, second = load_bucket(Bucket(prompts=(" a  cat", "no")), 0)
    assert (first.prompt, second.prompt) == (" a  cat", "no")
    assert first.source is None
    assert first.target is None


def test_rows_of_a_csv(csv_file):
    path = csv_file("prompt,task", "a,x", "b,y")
    assert [item.prompt for item in load_bucket(Bucket(csv=str(path), task="y"), 0)] == ["b"]


@pytest.mark.parametrize(("kind", "count"), [("t2i", 20), ("edit", 7), ("local", 4), ("global", 3), ("recolour", 5)])
def test_the_embedded_world_gives_the_requested_number_spread_evenly(kind, count):
    found = load_bucket(Bucket(shapes=kind, count=count), 0)
    each = Counter(item.task for item in found)
    assert len(found) == count
    assert set(each) <= set(KINDS[kind])
    assert max(each.values()) - min(each[category] for category in KINDS[kind]) <= 1


@pytest.mark.parametrize(("kind", "count"), [("t2i", 600), ("edit", 600), ("single", 200)])
def test_no_count_is_a_fair_number(kind, count):
    assert len(load_bucket(Bucket(shapes=kind), 0, 8, 8)) == count


def test_every_category_can_be_requested_alone():
    for category in T2I + EDIT:
        assert {item.task for item in load_bucket(Bucket(shapes=category, count=2), 0)} == {category}


def test_edits_have_source_and_target_and_captions_have_neither():
    for item in load_bucket(Bucket(shapes="edit", count=6), 0, 32, 48):
        assert isinstance(item.source, np.ndarray)
        assert isinstance(item.target, np.ndarray)
        assert item.source.shape == item.target.shape == (48, 48, 3)
        assert item.source.dtype == np.uint8
        assert not np.array_equal(item.source, item.target)
    assert all(item.source is None and item.target is None for item in load_bucket(Bucket(shapes="t2i", count=6), 0))


def test_the_seed_decides():
    def texts(seed):
        return [(item.prompt, item.source.tobytes()) for item in load_bucket(Bucket(shapes="edit", count=12), seed)]

    assert texts(0) == texts(0)
    assert texts(0) != texts(1)


def test_nothing_that_is_kept_for_evaluation_is_given():
    given = {item.prompt for item in load_bucket(Bucket(shapes="colour", count=100), 3)}
    assert not given & {item.text for item in items(("colour",), 100, 5, held_out=True)}


def test_more_than_there_is_is_refused():
    with pytest.raises(InputError, match=r"9000 pictures of single are too many: category 'single' has only \d+ "):
        load_bucket(Bucket(shapes="single", count=9000), 0)


def test_an_unknown_kind_and_an_empty_bucket_are_refused():
    with pytest.raises(InputError, match=r"did you mean 'local'\?"):
        load_bucket(Bucket(shapes="locl"), 0)
    with pytest.raises(InputError, match="the bucket is empty"):
        load_bucket(Bucket(), 0)
