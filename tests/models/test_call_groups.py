"""Samples that share a call: on a GPU only those that need no mask, with which attention leaves its fast kernels."""

from functools import partial

import pytest
import torch

from danceopd_core.models import zimage
from danceopd_core.models.network_inputs import call_by_group, text_layout, text_mask
from danceopd_core.models.registry import open_backbone

from ..tiny_families import save_krea2, save_qwen
from ..versions import needs_diffusers

PROMPTS = ["a", "b", "a much longer prompt of many more words than the two before it have together"]


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory):
    return open_backbone(save_qwen(tmp_path_factory.mktemp("qwen")))


@pytest.fixture(scope="module")
def tiny_krea2(tmp_path_factory):
    return open_backbone(save_krea2(tmp_path_factory.mktemp("krea2")))


@pytest.fixture
def masks(monkeypatch):
    """Whether each call of attention had a mask."""
    called = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def counted(query, key, value, attn_mask=None, *args, **given):
        called.append(attn_mask is not None)
        return attention(query, key, value, attn_mask, *args, **given)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    return called


@needs_diffusers("0.37")
@pytest.mark.parametrize(
    ("family", "layout"),
    [
        ("tiny_qwen", partial(text_layout, apart=True)),
        pytest.param("tiny_krea2", partial(text_layout, apart=True), marks=needs_diffusers("0.39")),
        ("opened_zimage", partial(zimage._layout, on_gpu=True)),
    ],
)
def test_on_a_gpu_texts_of_unequal_length_are_asked_apart_and_without_a_mask(family, layout, request, masks):
    backbone = request.getfixturevalue(family)
    x = torch.randn(3, *backbone.latent_shape(64, 64), generator=torch.Generator().manual_seed(0))
    sigma, cond = torch.tensor([0.9, 0.5, 0.2]), backbone.encode(PROMPTS)
    with torch.no_grad():
        together = backbone.velocity(x, sigma, cond)
        assert any(masks)
        masks.clear()
        apart = call_by_group(layout, backbone._group_velocity, x, sigma, cond)
    assert masks
    assert not any(masks)
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-5)


def test_a_text_mask_covers_the_tokens():
    assert text_mask([1, 3], torch.device("cpu")).tolist() == [[True, False, False], [True, True, True]]
