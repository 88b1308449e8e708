"""Trains the text-to-image networks: the base in two stages, and the realism checkpoint from it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from shutil import rmtree

from ...shapes import GUIDANCE
from ...shapes.language import T2I
from .build_context import BuildContext
from .quick_score import quick_score
from .training import Log, score_text, train
from .training_data import sample_items

PRETRAINED = ".loose"
"""The folder of the pretrained network until the base is finished; interrupted builds of earlier versions have it."""
CAPTIONS = (*T2I, "two", "position", "colour_attribute")
"""The categories of training captions: those that bind attributes to two objects are learned last and come twice."""


def pretrain_base(context: BuildContext, log: Log) -> None:
    """Trains the base from random weights on scenes of free layout."""
    plan = context.plan
    network = context.new_network()
    data = context.data(network, sample_items(CAPTIONS, plan.images, plan.seed + 10, free_layout=True))
    config = replace(plan.pretraining, seed=plan.seed + 11)
    evaluate = partial(quick_score, context, network, T2I, GUIDANCE, 8)
    train(context, "loose", network, dict(network.named_parameters()), data, config, log, evaluate)
    network.cpu().save_pretrained(context.out / PRETRAINED)


def build_base(context: BuildContext, log: Log) -> None:
    """Continues from the pretrained network on the world's own scenes; saves half precision to out/transformer."""
    plan = context.plan
    network = context.load_network(PRETRAINED)
    data = context.data(network, sample_items(CAPTIONS, plan.images, plan.seed + 12))
    config = replace(plan.base, seed=plan.seed + 13)
    evaluate = partial(quick_score, context, network, T2I, GUIDANCE, 8)
    train(context, "base", network, dict(network.named_parameters()), data, config, log, evaluate)
    for scale in (1.0, 1.5, 2.0, 3.0):
        log(f"base, guidance {scale}: {score_text(quick_score(context, network, T2I, scale, 8))}")
    network.half().cpu().save_pretrained(context.out / "transformer")
    rmtree(context.out / PRETRAINED)


def build_realism(context: BuildContext, log: Log) -> None:
    """A full checkpoint: the base trained further on shaded images of the same captions."""
    plan = context.plan
    network = context.load_network().requires_grad_(True)
    data = context.data(network, sample_items(T2I, plan.images, plan.seed + 30, "shaded"))
    config = replace(plan.realism, seed=plan.seed + 31)
    train(context, "realism", network, dict(network.named_parameters()), data, config, log)
    log(f"realism: {score_text(quick_score(context, network, T2I, GUIDANCE, 8))}")
    log(f"realism, lit: {score_text(quick_score(context, network, T2I, GUIDANCE, 8, style='shaded'))}")
    network.half().cpu().save_pretrained(context.out / "realism")
