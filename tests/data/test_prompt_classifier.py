"""Laws of the learned router, on embeddings and on the embedded world's own prompts."""

import pytest
import torch

from danceopd_core.data.buckets import load_bucket
from danceopd_core.data.prompt_classifier import fit, train_classifier
from danceopd_core.models.registry import open_backbone
from danceopd_core.recipe.schema import Bucket
from danceopd_core.shapes import locate

from ..tiny_families import save_sd3


def clouds(counts=(40, 60, 20), width=24, apart=6.0, seed=0):
    """Normal embeddings around a mean for each class, beside a feature that never varies; and their texts."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(len(counts), width, generator=generator) * apart
    rows = [m + torch.randn(count, width, generator=generator) for m, count in zip(means, counts, strict=True)]
    rows = [torch.cat([own, torch.full((len(own), 1), 500.0)], 1) for own in rows]
    return rows, [[f"{number} {row}" for row in range(count)] for number, count in enumerate(counts)]


def test_separated_classes_are_classified_correctly():
    rows, texts = clouds()
    classifier, scores = train_classifier(rows, texts, 0.25, seed=0)
    assert [(s.trained, s.held_out, s.correct) for s in scores] == [(30, 10, 10), (45, 15, 15), (15, 5, 5)]
    for number, own in enumerate(rows):
        odds = classifier(own).exp()
        assert (odds.argmax(1) == number).all()
        torch.testing.assert_close(odds.sum(1), torch.ones(len(own), dtype=torch.float64))


def test_identical_classes_are_classified_at_chance():
    rows, texts = clouds(counts=(400, 400), apart=0.0)
    _, scores = train_classifier(rows, texts, 0.25, seed=0)
    assert 0.35 < sum(s.correct for s in scores) / sum(s.held_out for s in scores) < 0.65


def test_the_same_prompts_give_the_same_classifier():
    rows, texts = clouds(apart=0.5)
    (one, scores), (again, same), (other, _) = (train_classifier(rows, texts, 0.25, seed) for seed in (0, 0, 1))
    assert one.weight.equal(again.weight)
    assert one.bias.equal(again.bias)
    assert scores == same
    assert not other.weight.equal(one.weight)  # another held-out part


def test_the_fit_is_where_the_gradient_is_zero():
    """Of the loss written anew: the mean over classes of the mean cross-entropy, with L2 on the weights alone."""
    rows, _ = clouds(apart=0.3)
    classes = torch.cat([torch.full((len(own),), number) for number, own in enumerate(rows)])
    found = fit(torch.cat(rows), classes, 3)
    weight, bias = found.weight.clone().requires_grad_(), found.bias.clone().requires_grad_()
    terms = []
    for number, own in enumerate(rows):
        log_probs = ((own.double() - found.mean) / found.scale @ weight + bias).log_softmax(1)
        terms.append(-log_probs[:, number].mean())
    (torch.stack(terms).mean() + 0.5e-3 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-5
    assert bias.grad.abs().max() < 1e-5


def test_all_rows_of_a_prompt_are_trained_on_or_all_are_held_out():
    rows = [torch.randn(40, 8), torch.randn(40, 8)]
    texts = [[f"{number} {row % 5}" for row in range(40)] for number in range(2)]
    _, scores = train_classifier(rows, texts, 0.25, seed=3)
    assert [(s.trained, s.held_out) for s in scores] == [(32, 8), (32, 8)]
    _, scores = train_classifier(rows, texts, 0.99, seed=3)  # at least one text is trained on
    assert [(s.trained, s.held_out) for s in scores] == [(8, 32), (8, 32)]


def test_embeddings_are_means_over_tokens_and_segments_and_what_is_pooled(zimage, tmp_path):
    picture = torch.zeros(32, 32, 3)
    cond = zimage.encode(["a red cat", "make it blue"], [None, [picture]])
    text, segments = (sample.values["text"] for sample in cond.samples)
    wanted = torch.stack([text.mean(0), torch.cat(segments).mean(0)])
    torch.testing.assert_close(zimage.prompt_embeddings(cond), wanted)
    cond = open_backbone(save_sd3(tmp_path)).encode(["a red cat"])
    values = cond.samples[0].values
    assert len(values["pooled"])
    (found,) = open_backbone(tmp_path).prompt_embeddings(cond)
    torch.testing.assert_close(found, torch.cat([values["text"].mean(0), values["pooled"]]))


@pytest.mark.parametrize("kinds", [("local", "global"), ("single", "count", "colour_attribute")])
def test_the_embedded_worlds_prompts_are_classified_by_their_embeddings(kinds):
    """The shipped text encoder, untrained as it is; a few prompts a class."""
    backbone = open_backbone(locate("shapes"))
    buckets = [load_bucket(Bucket(shapes=kind, count=80), seed=0) for kind in kinds]
    picture = torch.zeros(64, 64, 3)  # the text encoder does not see it
    samples = [
        backbone.encode([i.prompt for i in items], [[picture] if items[0].source is not None else None] * len(items))
        for items in buckets
    ]
    texts = [[item.prompt for item in items] for items in buckets]
    _, scores = train_classifier([backbone.prompt_embeddings(one) for one in samples], texts, 0.25, seed=0)
    assert sum(s.correct for s in scores) / sum(s.held_out for s in scores) >= 0.95
