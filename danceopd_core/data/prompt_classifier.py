"""The learned router's classifier: multinomial logistic regression on prompt embeddings.

It is trained on prompts whose class is known; a held-out part of them measures its accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

L2 = 1e-3
"""L2 regularisation: factor of half the squared norm of the weights, relative to the mean class cross-entropy."""
MIN_PROMPTS = 4
"""Different prompts that a class needs: three to train on and one held out."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """Multinomial logistic regression on standardised features.

    mean, scale: (D,). weight: (D, C). bias: (C,). All float64, on the CPU.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """The log-probabilities (n, C) of features (n, D)."""
        return ((features.double() - self.mean) / self.scale @ self.weight + self.bias).log_softmax(1)


@dataclass(frozen=True)
class ClassifierScore:
    """Numbers of prompts of one class: trained on, held out, and correctly classified held-out ones."""

    trained: int
    held_out: int
    correct: int


def fit(features: Tensor, classes: Tensor, count: int) -> Classifier:
    """Trains a classifier of features (n, D) into `count` classes; `classes` (n,) are the labels.

    Every class has the same weight however many rows it has, since the class frequencies of future prompts are
    unknown. The loss is convex and L-BFGS uses all rows at once, starting from zero, so there is no randomness.
    """
    features = features.double()
    mean, std = features.mean(0), features.std(0, correction=0)
    varies = std > 1e-9 * (1 + mean.abs())  # constant features stay at zero
    # Divided by sqrt(D) as well, rows have a norm of about 1, and L2 means the same for every width.
    scale = std.where(varies, torch.ones_like(std)) * features.shape[1] ** 0.5
    rows = (features - mean) / scale
    sample_weight = (1 / (count * torch.bincount(classes, minlength=count).double()))[classes]
    with torch.enable_grad():
        weight = rows.new_zeros(rows.shape[1], count).requires_grad_()
        bias = rows.new_zeros(count).requires_grad_()
        solver = torch.optim.LBFGS(
            [weight, bias], max_iter=300, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            solver.zero_grad()
            log_likelihood = (rows @ weight + bias).log_softmax(1).gather(1, classes[:, None])[:, 0]
            value = L2 / 2 * weight.square().sum() - (sample_weight * log_likelihood).sum()
            value.backward()
            return value

        solver.step(loss)
    return Classifier(mean, scale, weight.detach(), bias.detach())


def train_classifier(
    features: Sequence[Tensor], prompts: Sequence[Sequence[str]], holdout: float, seed: int
) -> tuple[Classifier, tuple[ClassifierScore, ...]]:
    """Trains a classifier on these classes, and scores it on held-out prompts.

    features: (n, D) of each class. prompts: their texts, at least MIN_PROMPTS different ones per class. The fraction
    `holdout` of a class's different texts, chosen by `seed`, is held out with all their rows, so that a prompt with
    several pictures is not in both parts.
    """
    generator = torch.Generator().manual_seed(seed)
    held = [_held_out(texts, holdout, generator) for texts in prompts]
    classes = torch.cat([torch.full((len(own),), number) for number, own in enumerate(features)])
    rows, held_out = torch.cat(list(features)), torch.cat(held)
    classifier = fit(rows[~held_out], classes[~held_out], len(features))
    correct = classifier(rows).argmax(1) == classes
    scores = []
    for number, mask in enumerate(held):
        test = held_out & (classes == number)
        scores.append(ClassifierScore(int((~mask).sum()), int(mask.sum()), int((correct & test).sum())))
    return classifier, tuple(scores)


def _held_out(texts: Sequence[str], holdout: float, generator: torch.Generator) -> Tensor:
    """A mask (n,) of the held-out rows: all rows of a random part of the different texts, at least one and not all."""
    unique = list(dict.fromkeys(texts))
    count = min(len(unique) - 1, max(1, round(holdout * len(unique))))
    chosen = {unique[index] for index in torch.randperm(len(unique), generator=generator)[:count].tolist()}
    return torch.tensor([text in chosen for text in texts])
