"""Laws of buckets of conditioning: what is written is read; a file that was not written by the pack is refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from danceopd_core.algorithm.fields import Conditioning, Sample
from danceopd_core.data.buckets import load_bucket
from danceopd_core.data.encoded_bucket import FORMAT, read_encoded, write_encoded
from danceopd_core.errors import InputError
from danceopd_core.recipe.schema import Bucket
from danceopd_core.runs.encoded.encoding import encode_items


def sample(tokens, seed=0, **more):
    text = torch.randn(tokens, 6, generator=torch.Generator().manual_seed(seed))
    return Sample({"text": text, "pooled_output": torch.ones(1, 3), **more})


def equal(a, b):
    assert a.values.keys() == b.values.keys()
    for name, value in a.values.items():
        other = b.values[name]
        assert isinstance(other, tuple) == isinstance(value, tuple)
        pairs = zip(value, other, strict=True) if isinstance(value, tuple) else [(value, other)]
        assert all(one.dtype == two.dtype and torch.equal(one, two) for one, two in pairs), name
    return True


def picture(shade, side=4):
    return np.full((side, side + 1, 3), shade, np.uint8)


SAMPLES = [
    sample(3, 0),
    sample(5, 1, reference_latents=(torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 3))),
    sample(2, 2, **{"a/b.0": torch.tensor(True), "settings": torch.tensor([123, 125], dtype=torch.uint8)}),
]


def test_what_is_written_is_read(tmp_path):
    nulls, targets = [sample(1, seed) for seed in (7, 8, 9)], [picture(shade, 2 + shade) for shade in range(3)]
    file = write_encoded(tmp_path, SAMPLES, nulls, targets, "cats")
    items = load_bucket(Bucket(encoded=str(file)), seed=0)
    assert [item.prompt for item in items] == ["cats 1", "cats 2", "cats 3"]
    assert all(equal(item.conditioning, given) for item, given in zip(items, SAMPLES, strict=True))
    assert all(equal(item.null, given) for item, given in zip(items, nulls, strict=True))
    assert all(np.array_equal(item.target, given) for item, given in zip(items, targets, strict=True))
    assert all(item.source is None for item in items)


def test_one_negative_and_one_target_serve_all(tmp_path):
    items = read_encoded(write_encoded(tmp_path, SAMPLES, [sample(1)], [picture(9)], "x"))
    assert all(equal(item.null, sample(1)) and item.target.max() == 9 for item in items)
    bare = read_encoded(write_encoded(tmp_path, SAMPLES, [], [], "x"))
    assert all(item.null is None and item.target is None for item in bare)


def test_the_name_is_the_content(tmp_path):
    def name(*given):
        return write_encoded(tmp_path, *given).name

    first = name(SAMPLES, [], [], "x")
    assert name(SAMPLES, [], [], "x") == first
    others = {
        name(SAMPLES[:2], [], [], "x"), name(SAMPLES, SAMPLES[:1], [], "x"), name(SAMPLES, [], [picture(1)], "x"),
        name(SAMPLES, [], [], "y"), name(SAMPLES[::-1], [], [], "x"),
    }  # fmt: skip
    assert len(others | {first}) == 6


@pytest.mark.parametrize(
    ("nulls", "targets", "told"),
    [
        (2, 0, "negative: 2 are given for 3 of conditioning"),
        (0, 2, "target_images: 2 are given for 3 of conditioning"),
    ],
)
def test_numbers_that_do_not_match_are_refused_by_the_input(tmp_path, nulls, targets, told):
    with pytest.raises(InputError, match=told):
        write_encoded(tmp_path, SAMPLES, SAMPLES[:nulls], [picture(1)] * targets, "x")


def test_conditioning_that_is_not_finite_is_refused_by_its_number(tmp_path):
    spoilt = sample(2)
    spoilt.values["text"][0, 0] = torch.nan
    with pytest.raises(InputError, match="conditioning: number 2 holds NaN"):
        write_encoded(tmp_path, [SAMPLES[0], spoilt], [], [], "x")
    assert not list(tmp_path.iterdir())


HEADER = {"danceopd_bucket": json.dumps({"format": FORMAT, "label": "x"})}
GOOD = {"positive/0/-/text": torch.zeros(2, 3)}


@pytest.mark.parametrize(
    ("tensors", "header", "told"),
    [
        (GOOD, {}, "no header"),
        (GOOD, {"danceopd_bucket": "[1]"}, "no header"),
        (GOOD, {"danceopd_bucket": json.dumps({"format": "danceopd conditioning 9", "label": "x"})}, "no header"),
        ({**GOOD, "weight": torch.zeros(1)}, HEADER, "it holds 'weight'"),
        ({"negative/0/-/text": torch.zeros(2, 3)}, HEADER, "no conditioning"),
        ({**GOOD, "positive/2/-/text": torch.zeros(2, 3)}, HEADER, "without a gap"),
        ({**GOOD, "positive/0/1/refs": torch.zeros(2)}, HEADER, "list of positive 1 has a gap"),
        ({**GOOD, "positive/0/-/r": torch.zeros(2), "positive/0/0/r": torch.zeros(2)}, HEADER, "has a gap"),
        ({"positive/0/-/text": torch.zeros(1, 2, 3)}, HEADER, r"the shape \(1, 2, 3\)"),
        ({**GOOD, "target/0/-/picture": torch.zeros(2, 2, 3)}, HEADER, "no picture"),
        ({"positive/0/-/text": torch.full((2, 3), torch.inf)}, HEADER, "NaN or infinity"),
    ],
)
def test_a_file_that_the_pack_did_not_write_is_refused_in_one_sentence(tmp_path, tensors, header, told):
    file = tmp_path / "a.safetensors"
    save_file(tensors, file, header)
    with pytest.raises(InputError, match=told) as caught:
        read_encoded(file)
    assert "Bucket from Conditioning" in str(caught.value)


def test_a_file_that_is_gone_or_torn_is_refused(tmp_path):
    file = write_encoded(tmp_path, SAMPLES, [], [], "x")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_encoded(file)
    file.unlink()
    with pytest.raises(InputError, match="does not exist"):
        read_encoded(file)


def test_a_pickle_is_not_read(tmp_path):
    torch.save(GOOD, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_encoded(tmp_path / "a.safetensors")


class Encoder:
    """A backbone that encodes a prompt as its length."""

    def encode(self, prompts, sources=None, negatives=()):
        def one(text):
            return Sample({"text": torch.full((1, 6), float(len(text)))})

        return Conditioning(tuple(Sample(one(p).values, {n: one(n) for n in negatives}) for p in prompts))


def test_given_conditioning_is_taken_as_it_is_and_prompts_beside_it_are_encoded(tmp_path):
    own = read_encoded(write_encoded(tmp_path, SAMPLES, [sample(1)], [], "x"))
    bare = read_encoded(write_encoded(tmp_path, SAMPLES[:1], [], [], "x"))
    (prompt,) = load_bucket(Bucket(prompts=("four",)), 0)
    found = encode_items(Encoder(), [own[1], prompt, bare[0]], 8, 8, ["", "bad"]).samples
    assert equal(Sample(found[0].values), SAMPLES[1])
    assert equal(found[0].nulls["bad"], sample(1))
    assert equal(found[0].nulls[""], sample(1))
    assert found[1].values["text"][0, 0] == 4
    assert equal(Sample(found[2].values), SAMPLES[0])
    assert found[2].nulls["bad"].values["text"][0, 0] == 3
    assert not encode_items(Encoder(), own, 8, 8).samples[0].nulls


def test_the_encoded_negative_of_an_edit_keeps_its_source_pictures(tmp_path):
    edit = Sample({"text": torch.zeros(2, 6), "mask": torch.ones(2), "reference_latents": (torch.ones(16, 2, 2),)})
    (item,) = read_encoded(write_encoded(tmp_path, [edit], [], [], "x"))
    (found,) = encode_items(Encoder(), [item], 8, 8, ["bad"]).samples
    null = found.nulls["bad"].values
    assert set(null) == {"text", "reference_latents"}
    assert null["text"][0, 0] == 3
    assert torch.equal(null["reference_latents"][0], torch.ones(16, 2, 2))


def test_the_file_holds_the_tensors_and_nothing_else(tmp_path):
    file = write_encoded(tmp_path, SAMPLES[:1], [], [], "x")
    assert set(load_file(file)) == {"positive/0/-/text", "positive/0/-/pooled_output"}
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
