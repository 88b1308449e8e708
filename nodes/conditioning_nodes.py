"""A node for prompts that encode nodes of ComfyUI have encoded."""

from __future__ import annotations

import os
from typing import Any

from ..danceopd_core.algorithm.fields import Sample
from ..danceopd_core.errors import InputError
from ..danceopd_core.recipe.graph import PromptSpec
from ..danceopd_core.recipe.schema import Bucket
from ._comfy import as_arrays, io, output_folder
from .sockets import CATEGORY, BucketSocket

WRITTEN: dict[str, int] = {}
"""Bucket files that this process has written, with their sizes in bytes."""


class ConditioningBucket(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DanceOPD_ConditioningBucket",
            display_name="Bucket from Conditioning",
            category=CATEGORY,
            description="The prompts of one route as encoded by ComfyUI's own nodes, for models whose edits or "
            "conditions Prompt Bucket does not know. Only for Flow Model from ComfyUI.",
            search_aliases=["danceopd", "conditioning to bucket", "encoded prompts", "reference latent", "edit"],
            is_input_list=True,
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="One prompt, or a list of them, for example from Create List. Each entry is one sample.",
                ),
                io.String.Input(
                    "label", default="conditioning", tooltip="Name of the bucket in plots, tables and captions."
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="Negative conditioning of teachers with guidance, in place of their negative prompt: one "
                    "for all entries, or one each. Edits need it, encoded with the same source images.",
                ),
                io.Image.Input(
                    "target_images",
                    optional=True,
                    tooltip="Target images: one for all entries, or one each. Required only by the method offpolicy.",
                ),
            ],
            outputs=[
                BucketSocket.Output(
                    "bucket", display_name="bucket", tooltip="Samples, for Route Selector and Learned Router."
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs):
        # A file that is gone is written anew; without this ComfyUI would return its cached name.
        return sorted(file for file, size in WRITTEN.items() if not _has_size(file, size))

    @classmethod
    def execute(cls, conditioning, label, negative=None, target_images=None):
        from ..danceopd_core.data.encoded_bucket import write_encoded

        label = label[0].strip() or "conditioning"
        targets = [picture for batch in target_images or () for picture in as_arrays(batch, "target_images")]
        samples, nulls = _samples(conditioning, "conditioning"), _samples(negative or (), "negative")
        file = write_encoded(output_folder() / "danceopd-buckets", samples, nulls, targets, label)
        WRITTEN[str(file)] = file.stat().st_size
        return io.NodeOutput(PromptSpec(Bucket(encoded=str(file)), label))


def _has_size(file: str, size: int) -> bool:
    return os.path.isfile(file) and os.path.getsize(file) == size


def _samples(conditioning: Any, widget: str) -> list[Sample]:
    from .native.conditioning import sample_of

    samples = []
    for number, entry in enumerate(conditioning):
        try:
            samples.append(sample_of(entry))
        except InputError as error:
            raise InputError(f"{widget}: number {number + 1} of {len(conditioning)}: {error}") from None
    return samples
