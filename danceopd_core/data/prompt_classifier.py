"""A learned router: which class a prompt belongs to, told from its embedding by logistic regression.

It learns from prompts whose class is known; some of them are held out, and on these alone its accuracy is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

L2 = 1e-3
"""Weight of half the squared norm of the weights, beside a cross-entropy that is a mean over the classes."""
MIN_PROMPTS = 4
"""Different prompts that a class needs: three to learn from and one to hold out."""


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
    """Prompts of one class: learned from, held out, and those of the held-out ones that were told rightly."""

    learned: int
    held_out: int
    right: int


def fit(features: Tensor, classes: Tensor, count: int) -> Classifier:
    """The classifier of features (n, D) into `count` classes, of which `classes` (n,) names those of the rows.

    Every class weighs the same however many rows it has, since nothing says how often the prompts to come are of
    it. The loss is convex and L-BFGS takes all rows at once, from zero: nothing is drawn.
    """
    features = features.double()
    mean, deviation = features.mean(0), features.std(0, correction=0)
    known = deviation > 1e-9 * (1 + mean.abs())  # what never varies stays as it is, at zero
    # Divided by sqrt(D) as well, a row has norm 1 or so, and L2 means the same at every width.
    scale = deviation.where(known, torch.ones_like(deviation)) * features.shape[1] ** 0.5
    rows = (features - mean) / scale
    share = (1 / (count * torch.bincount(classes, minlength=count).double()))[classes]
    with torch.enable_grad():
        weight = rows.new_zeros(rows.shape[1], count).requires_grad_()
        bias = rows.new_zeros(count).requires_grad_()
        solver = torch.optim.LBFGS(
            [weight, bias], max_iter=300, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            solver.zero_grad()
            told = (rows @ weight + bias).log_softmax(1).gather(1, classes[:, None])[:, 0]
            value = L2 / 2 * weight.square().sum() - (share * told).sum()
            value.backward()
            return value

        solver.step(loss)
    return Classifier(mean, scale, weight.detach(), bias.detach())


def train_classifier(
    features: Sequence[Tensor], prompts: Sequence[Sequence[str]], holdout: float, seed: int
) -> tuple[Classifier, tuple[ClassifierScore, ...]]:
    """The classifier of these classes, and its marks on prompts that it never saw.

    features: (n, D) of each class; prompts: their texts, at least MIN_PROMPTS different ones in a class. Of a class's
    different texts the part `holdout` is drawn by `seed` and held out, with all the rows that have them: a prompt
    that stands there for many pictures is not learned from in one row and asked in another.
    """
    generator = torch.Generator().manual_seed(seed)
    held = [_held_out(texts, holdout, generator) for texts in prompts]
    classes = torch.cat([torch.full((len(own),), number) for number, own in enumerate(features)])
    rows, exam = torch.cat(list(features)), torch.cat(held)
    classifier = fit(rows[~exam], classes[~exam], len(features))
    right = classifier(rows).argmax(1) == classes
    marks = []
    for number, own in enumerate(held):
        asked = exam & (classes == number)
        marks.append(ClassifierScore(int((~own).sum()), int(own.sum()), int((right & asked).sum())))
    return classifier, tuple(marks)


def _held_out(texts: Sequence[str], share: float, generator: torch.Generator) -> Tensor:
    """Which rows (n,) are held out: all those of some of the different texts, at least of one and not of all."""
    different = list(dict.fromkeys(texts))
    count = min(len(different) - 1, max(1, round(share * len(different))))
    chosen = {different[place] for place in torch.randperm(len(different), generator=generator)[:count].tolist()}
    return torch.tensor([text in chosen for text in texts])
