"""Laws of fields and of what conditions them."""

import pytest
import torch

from danceopd_core.algorithm.fields import Conditioning, Sample, guided, mixed

SIGMA = torch.tensor([0.9, 0.5, 0.2])


def test_guidance_is_the_textbook_formula_in_one_call(linear, start):
    field, begin = linear(), start(3)
    v = field(begin.noise, SIGMA, begin.cond)
    v_null = field(begin.noise, SIGMA, begin.cond.null(""))
    field.calls.clear()
    torch.testing.assert_close(guided(field, 4.5)(begin.noise, SIGMA, begin.cond), v_null + 4.5 * (v - v_null))
    assert field.calls == [6]


def test_guidance_of_scale_one_is_the_field_itself(linear):
    field = linear()
    assert guided(field, 1.0) is field


def test_an_unencoded_negative_prompt_is_named(linear, start):
    begin = start(2)
    with pytest.raises(ValueError, match="sample 0 has no encoding for the negative prompt 'blurry'"):
        guided(linear(), 2.0, "blurry")(begin.noise, SIGMA[:2], begin.cond)


def test_a_mixture_is_the_weighted_sum_and_its_weights_sum_to_one(linear, start):
    one, two, begin = linear(1), linear(2), start(3)
    got = mixed([(one, 0.25), (two, 0.75)])(begin.noise, SIGMA, begin.cond)
    parts = [field(begin.noise, SIGMA, begin.cond) for field in (one, two)]
    torch.testing.assert_close(got, 0.25 * parts[0] + 0.75 * parts[1])
    with pytest.raises(ValueError, match=r"sum to 1\.25, not 1"):
        mixed([(one, 0.5), (two, 0.75)])


def test_a_batch_is_its_samples():
    one, two = Sample({"text": torch.ones(2, 3)}), Sample({"text": torch.ones(5, 3)})
    both = Conditioning((one,)) + Conditioning((two,))
    assert len(both) == 2
    assert both.select([1, 0]).samples == (two, one)
    assert both.select(torch.tensor([1])).samples == (two,)


def test_moving_reaches_tuples_and_nulls():
    null = Sample({"sources": (torch.ones(2),)})
    moved = Conditioning((Sample({"text": (torch.ones(2), torch.ones(3))}, {"": null}),)).to("meta")
    first, second = moved.samples[0].values["text"]
    assert first.is_meta
    assert second.is_meta
    assert moved.null().samples[0].values["sources"][0].is_meta
