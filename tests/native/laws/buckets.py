"""CONDITIONING of stock nodes becomes samples, a file, and samples again, and no network sees a difference."""

import tempfile
from pathlib import Path

import torch
from pack.danceopd_core.algorithm.fields import Conditioning
from pack.danceopd_core.data.encoded_bucket import read_encoded, write_encoded
from pack.danceopd_core.errors import InputError
from pack.nodes.native.conditioning import conditioning_of, sample_of
from pack_laws.configs import CONFIGS
from pack_laws.tiny_models import prompts, state, tiny_backbone


def given(name, number=0, **extras):
    """As an encode node gives it, in inference mode."""
    with torch.inference_mode():
        ((text, values),) = conditioning_of(prompts(name, number + 1).samples[number])
        return [[text.clone(), {**values, **extras}]]


def test_what_a_bucket_holds_is_what_the_network_gets():
    for name in CONFIGS.keys() - {"HiDreamO1"}:  # its conditioning is tokens
        backbone = tiny_backbone(name)
        extras = {"guidance": 2.5} if name == "Flux" else {}
        if name == "Flux2":
            with torch.inference_mode():
                extras["reference_latents"] = [torch.randn(1, 128, 2, 2), torch.randn(1, 128, 2, 3)]
        samples = [sample_of(given(name, number, **extras)) for number in range(2)]
        with tempfile.TemporaryDirectory() as folder:
            items = read_encoded(write_encoded(Path(folder), samples, samples[:1], [], "x"))
        x, sigma = state(backbone)
        cond = Conditioning(tuple(item.conditioning for item in items))
        with torch.no_grad():
            direct = backbone.velocity(x, sigma, Conditioning(tuple(samples)))
            assert torch.equal(backbone.velocity(x, sigma, cond), direct), name
        read = [value for item in items for value in item.conditioning.values.values()]
        assert not any(
            part.is_inference() for value in read for part in (value if isinstance(value, tuple) else [value])
        )


def test_what_is_not_one_sample_is_refused():
    def error(conditioning):
        try:
            sample_of(conditioning)
        except InputError as found:
            return str(found)
        raise AssertionError("it was taken")

    one = given("SD3")
    assert "2 entries" in error(one + one)
    assert "0 entries" in error([])
    assert "batch of 2 texts" in error([[one[0][0].repeat(2, 1, 1), one[0][1]]])
    assert "a ControlNet" in error(given("SD3", control=object()))
    assert "custom" in error(given("SD3", custom=object()))
