"""What does not fit a MODEL is said in the user's words before anything is trained."""

import torch
from pack.danceopd_core.algorithm.fields import Conditioning, Sample
from pack.danceopd_core.errors import InputError
from pack.nodes.native.conditioning_check import check
from pack.nodes.native.source import NativeModel, NativeTeacher
from pack_laws.tiny_models import CONFIGS, NoVae, prompts, sizes, state, tiny_backbone, tiny_model


def fault(call):
    try:
        call()
    except InputError as error:
        (found,) = error.faults
        return found.setting, found.message
    return None


def without(cond, name):
    kept = ({key: value for key, value in sample.values.items() if key != name} for sample in cond.samples)
    return Conditioning(tuple(Sample(values) for values in kept))


def test_what_fits_is_taken_and_asked_once_a_kind():
    for name in CONFIGS:
        backbone = tiny_backbone(name)
        assert fault(lambda own=backbone, name=name: own.check(prompts(name), *sizes(own))) is None, name
    backbone, calls = tiny_backbone("SD3"), []

    def counted(x, sigma, cond):
        calls.append(len(cond))
        return backbone.velocity(x, sigma, cond)

    guided = Conditioning(tuple(Sample(own.values, {"": own, "bad": own}) for own in prompts("SD3", 4).samples))
    x, _ = state(backbone, 1)
    check("SD3", backbone.network, counted, guided, x)
    assert calls == [1]
    assert not any(module._forward_pre_hooks for module in backbone.network.modules())


def test_a_text_encoder_of_another_family_is_named():
    """Its vectors have another length: the first layer that takes them is found, in every family."""
    for name in CONFIGS.keys() - {"HiDreamO1"}:  # it encodes the tokens itself
        backbone = tiny_backbone(name)
        wide = Conditioning(
            tuple(
                Sample({**own.values, "text": torch.cat([own.values["text"]] * 3, 1)}) for own in prompts(name).samples
            )
        )
        width = prompts(name).samples[0].values["text"].shape[1]
        setting, told = fault(lambda own=backbone, wide=wide: own.check(wide, *sizes(own)))
        assert setting == "model.clip", name
        assert "its layer" in told or name == "Krea2", (name, told)  # it checks for itself, in words of its own
        assert str(3 * width) in told or name == "Lens", (name, told)  # it splits the vectors first
        assert "Load the text encoder of this model" in told
        assert not any(module._forward_pre_hooks for module in backbone.network.modules())


def test_a_pooled_output_that_is_missing_is_named():
    backbone = tiny_backbone("SD3")
    setting, told = fault(lambda: backbone.check(without(prompts("SD3"), "pooled_output"), *sizes(backbone)))
    assert setting == "model.clip"
    assert "needs pooled_output" in told


def test_memory_that_runs_out_is_no_fault_of_the_text_encoder():
    import comfy.model_management as management

    def law(x, sigma, cond):
        raise management.OOM_EXCEPTION("no memory")

    backbone = tiny_backbone("SD3")
    x, _ = state(backbone, 1)
    try:
        check("SD3", backbone.network, law, prompts("SD3"), x)
    except management.OOM_EXCEPTION:
        return
    raise AssertionError("it was taken for another error")


def test_a_node_says_what_can_be_known_before_anything_is_loaded():
    def model(patcher, vae):
        return NativeModel(patcher, None, vae, "digest")

    with torch.inference_mode():
        flux, other = tiny_model("Flux"), tiny_model("SD3")
    vae = NoVae(flux.model.latent_format)
    assert fault(model(flux, vae).check) is None

    no_loader = flux.clone()
    no_loader.cached_patcher_init, no_loader.is_dynamic = None, lambda: True  # streamed weights cannot be copied
    setting, told = fault(model(no_loader, vae).check)
    assert (setting, "Load Diffusion Model" in told) == ("model", True)

    bypassed = flux.clone()
    bypassed.set_injections("bypass_lora", [object()])
    setting, told = fault(model(bypassed, vae).check)
    assert (setting, "bypass off" in told) == ("model", True)

    compiled = flux.clone()
    compiled.model_options["torch_compile_kwargs"] = {}
    setting, told = fault(model(compiled, vae).check)
    assert (setting, "TorchCompileModel" in told) == ("model", True)

    guided = flux.clone()
    guided.set_model_sampler_cfg_function(lambda args: args["cond"])
    setting, told = fault(model(guided, vae).check)
    assert (setting, "sampler_cfg_function" in told) == ("model", True)

    wide = NoVae(flux.model.latent_format)
    wide.latent_channels = 4
    setting, told = fault(model(flux, wide).check)
    assert (setting, "16 channels" in told) == ("vae", True)

    setting, told = fault(lambda: NativeTeacher(other, "digest").check(model(flux, vae)))
    assert (setting, "SD3" in told, "Flux" in told) == ("model", True, True)
    larger = tiny_model("Flux", more=(("depth", 3),))
    setting, told = fault(lambda: NativeTeacher(larger, "digest").check(model(flux, vae)))
    assert (setting, "of different sizes" in told) == ("model", True)
    setting, told = fault(lambda: NativeTeacher(guided, "digest").check(model(flux, vae)))
    assert (setting, "sampler_cfg_function" in told) == ("model", True)
