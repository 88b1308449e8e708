# ruff: noqa: PT017 (run without pytest)
"""A run is known by the nodes above its model, however many ways lead to each."""

import time

from pack.danceopd_core.errors import InputError
from pack.nodes.native.identity import loader_files, upstream_digest


def chain(loras, strength=1.0):
    """A loader, LoRAs that pass on MODEL and CLIP, and a node that takes both."""
    prompt = {"0": {"class_type": "Loader", "inputs": {"ckpt_name": "a.safetensors"}}}
    for number in range(1, loras + 1):
        above = str(number - 1)
        inputs = {"model": [above, 0], "clip": [above, 1], "strength": strength if number == 1 else 1.0}
        prompt[str(number)] = {"class_type": "LoraLoader", "inputs": inputs}
    inputs = {"model": [str(loras), 0], "clip": [str(loras), 1], "edits": "auto"}
    prompt["end"] = {"class_type": "Flow", "inputs": inputs}
    return prompt


def test_a_chain_of_loras_takes_no_time():
    start = time.process_time()
    one = upstream_digest(chain(200), "end", ("model", "clip", "edits"))
    assert time.process_time() - start < 1
    assert one == upstream_digest(chain(200), "end", ("model", "clip", "edits"))
    assert one != upstream_digest(chain(200, strength=0.5), "end", ("model", "clip", "edits"))
    assert loader_files(chain(200), "end", ("model", "clip")) == ()


def test_settings_of_the_node_itself_count():
    prompt = chain(1)
    one = upstream_digest(prompt, "end", ("model", "edits"))
    prompt["end"]["inputs"]["edits"] = "reference_latent"
    assert one != upstream_digest(prompt, "end", ("model", "edits"))


def test_a_node_that_is_not_in_the_workflow_is_refused():
    try:
        upstream_digest(chain(1), "elsewhere", ("model",))
    except InputError as error:
        assert "in the workflow itself" in str(error)
    else:
        raise AssertionError("it was taken")
