"""A part of a model from one file is the part from its folder, read whole or refused."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from danceopd_core.errors import InputError
from danceopd_core.models.backbone import COMPONENTS
from danceopd_core.models.registry import open_backbone

from ..native_names import (
    flux2_to_native,
    flux2_vae_to_native,
    flux_to_native,
    krea2_to_native,
    qwen21_to_native,
    to_native,
    vae_to_native,
    video_vae_to_native,
)
from ..tiny_families import save_flux, save_flux2, save_krea2, save_qwen, save_qwen21, save_sd3
from ..versions import by_family


@pytest.fixture(scope="module", params=by_family(["zimage", "sd3", "flux", "flux2", "qwen", "krea2", "qwen21"]))
def model(request, tmp_path_factory):
    if request.param == "zimage":
        return request.getfixturevalue("zimage_folder")
    saved = {"sd3": save_sd3, "flux": save_flux, "flux2": save_flux2, "qwen": save_qwen, "krea2": save_krea2}
    saved["qwen21"] = save_qwen21
    return saved[request.param](tmp_path_factory.mktemp("model"))


def split(model, target):
    """The model without weights, and its parts' weights in files of their own."""
    shutil.copytree(model, target / "model")
    files = {}
    for part in COMPONENTS:
        for weights in (target / "model" / part).glob("*.safetensors"):
            files[part] = weights.rename(target / f"{part}.safetensors")
    return target / "model", files


def states(backbone):
    return [dict(module.state_dict()) for module in (backbone.network, backbone.vae.module, *backbone._encoders)]


def same(one, other):
    for mine, theirs in zip(states(one), states(other), strict=True):
        assert mine.keys() == theirs.keys()
        for name, tensor in mine.items():
            assert tensor.dtype == theirs[name].dtype, name
            assert tensor.equal(theirs[name]), name
    modules = zip((one.network, one.vae.module), (other.network, other.vae.module), strict=True)
    for mine, theirs in modules:  # what no file holds
        for (name, tensor), (_, own) in zip(mine.named_buffers(), theirs.named_buffers(), strict=True):
            assert tensor.dtype == own.dtype, name
            assert tensor.equal(own), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_from_files_is_the_model_from_its_folder(model, tmp_path, dtype):
    folder, files = split(model, tmp_path)
    assert len(files) >= 3
    with pytest.raises(InputError):
        open_backbone(folder, dtype)
    found = open_backbone(folder, dtype, components=files)
    same(found, open_backbone(model, dtype))
    assert not any(parameter.requires_grad for parameter in found.network.parameters())
    assert not found.network.training


def under(prefix, tensors):
    return {prefix + name: tensor.contiguous() for name, tensor in tensors.items()}


@pytest.mark.parametrize("model", by_family(["zimage", "sd3", "flux", "flux2"]), indirect=True)
@pytest.mark.parametrize("whole", [False, True])
def test_files_under_the_original_names_are_that_model(model, tmp_path, whole):
    expected = open_backbone(model)
    folder, files = split(model, tmp_path)
    native = {"flux": flux_to_native, "flux2": flux2_to_native}.get(expected.family, to_native)
    vae = (flux2_vae_to_native if expected.family == "flux2" else vae_to_native)(expected.vae.module)
    network = native(expected.network)
    assert not network.keys() & {"transformer_blocks.0.attn.to_q.weight", "layers.0.attention.to_q.weight"}
    assert "decoder.up.3.upsample.conv.weight" in vae
    if whole:
        beside = {"text_encoders.clip_l.transformer.x.weight": torch.full((2,), float("nan"))}
        everything = under("model.diffusion_model.", network) | under("first_stage_model.", vae) | beside
        save_file(everything, tmp_path / "whole.safetensors")
        files |= dict.fromkeys(("transformer", "vae"), tmp_path / "whole.safetensors")
    else:
        save_file(under("", network), files["transformer"])
        save_file(under("", vae), files["vae"])
    if expected.family == "zimage":  # as the encoder is within the language model
        weights = load_file(files["text_encoder"])
        save_file(under("model.", weights) | {"lm_head.weight": torch.zeros(3, 32)}, files["text_encoder"])
    same(open_backbone(folder, components=files), expected)


@pytest.mark.parametrize("model", by_family(["krea2"]), indirect=True)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_krea2_of_the_original_names_keeps_its_norms_in_float32(model, tmp_path, prefix):
    expected = open_backbone(model, torch.bfloat16)
    folder, files = split(model, tmp_path)
    native = krea2_to_native(expected.network)
    native |= {f"last.{part}.weight": torch.ones(2, 2) for part in ("up", "down")}  # no pipeline has layers of them
    save_file(under(prefix, native), files["transformer"])
    same(open_backbone(folder, torch.bfloat16, components=files), expected)


@pytest.mark.parametrize("model", by_family(["qwen", "krea2"]), indirect=True)
@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_a_video_vae_of_the_original_names_is_that_vae(model, tmp_path, prefix):
    expected = open_backbone(model)
    folder, files = split(model, tmp_path)
    native = video_vae_to_native(expected.vae.module)
    assert {"conv1.weight", "decoder.upsamples.7.resample.1.weight", "decoder.middle.1.proj.bias"} <= native.keys()
    save_file(under(prefix, native), files["vae"])
    same(open_backbone(folder, components=files), expected)
    for damage, message in ((drop, "1 missing"), (add, r"1 unknown \(.*extra\.weight\)"), (nan, "NaN")):
        damaged = {name: tensor.clone() for name, tensor in under(prefix, native).items()}
        damage(damaged)
        save_file(damaged, files["vae"])
        with pytest.raises(InputError, match=rf"vae\.safetensors.*{message}"):
            open_backbone(folder, components=files)


@pytest.mark.parametrize("model", by_family(["qwen21"]), indirect=True)
def test_a_qwen_image_21_of_fused_layers_is_that_model(model, tmp_path):
    expected = open_backbone(model)
    folder, files = split(model, tmp_path)
    native = qwen21_to_native(expected.network)
    assert "transformer_blocks.0.img_mlp.gate_layer.weight" not in native
    save_file(under("model.diffusion_model.", native), files["transformer"])
    same(open_backbone(folder, components=files), expected)


@pytest.mark.parametrize("model", ["flux"], indirect=True)
def test_text_encoders_go_by_the_names_of_comfyuis_files_too(model, tmp_path):
    # Z-Image's is above; Qwen-Image's is saved by transformers itself under the names that ComfyUI has.
    expected = open_backbone(model)
    folder, files = split(model, tmp_path)
    weights = load_file(files["text_encoder"])
    bare = {name.removeprefix("text_model."): tensor for name, tensor in weights.items()}
    spare = {"logit_scale": torch.zeros(()), "text_projection.weight": torch.zeros(3, 3)}
    save_file(under("text_model.", bare) | spare, files["text_encoder"])
    t5 = load_file(files["text_encoder_2"])
    t5["encoder.embed_tokens.weight"] = t5["shared.weight"].clone()
    save_file(t5, files["text_encoder_2"])
    same(open_backbone(folder, components=files), expected)


def drop(weights):
    del weights[sorted(weights)[0]]


def add(weights):
    weights["extra.weight"] = torch.zeros(3)


def narrow(weights):
    name = next(name for name, tensor in weights.items() if tensor.ndim == 2 and tensor.shape[1] > 1)
    weights[name] = weights[name][:, :-1].clone()


def nan(weights):
    weights[sorted(weights)[0]].fill_(float("nan"))


def fp8(weights):
    name = next(name for name, tensor in weights.items() if tensor.ndim == 2)
    weights[name] = weights[name].to(torch.float8_e4m3fn)


def scaled(weights):
    weights[sorted(weights)[0].replace("weight", "scale_weight") + ".scale_weight"] = torch.ones(())


DAMAGES = [
    (drop, r"missing|lacks"),
    (add, r"1 unknown.*extra\.weight"),
    (narrow, r"shape|size"),
    (nan, "NaN"),
    (fp8, r"quantised weights, in 8 bits"),
    (scaled, r"quantised weights, with scales"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_a_damaged_file_is_refused_by_name(zimage_folder, tmp_path, part, damage, message):
    folder, files = split(zimage_folder, tmp_path)
    weights = load_file(files[part])
    damage(weights)
    save_file(weights, files[part])
    with pytest.raises(InputError, match=rf"(?s){part}\.safetensors.*({message})"):
        open_backbone(folder, components=files)


def drop_bias(weights):
    del weights["encoder.down.1.downsample.conv.bias"]


@pytest.mark.parametrize("damage", [drop, drop_bias, add], ids=["drop", "bias", "add"])
def test_a_damaged_vae_under_the_original_names_is_refused(zimage_folder, opened_zimage, tmp_path, damage):
    folder, files = split(zimage_folder, tmp_path)
    native = vae_to_native(opened_zimage.vae.module)
    damage(native)
    save_file(native, files["vae"])
    with pytest.raises(InputError, match=r"vae\.safetensors.*(1 missing|1 unknown weights \(extra\.weight\))"):
        open_backbone(folder, components=files)


def test_what_is_no_safetensors_file_is_refused(zimage_folder, tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" * 9)
    for part in ("transformer", "vae", "text_encoder"):
        for file in (tmp_path / "a.gguf", tmp_path / "none.safetensors"):
            with pytest.raises(InputError, match=file.name):
                open_backbone(zimage_folder, components={part: file})


def test_a_part_that_the_model_has_not_is_refused(zimage_folder, tmp_path):
    with pytest.raises(InputError, match=r"ZImagePipeline .* has no text_encoder_2: it has transformer, vae, text_enc"):
        open_backbone(zimage_folder, components={"text_encoder_2": tmp_path / "a.safetensors"})


def test_pickled_weights_are_not_read(zimage_folder, tmp_path):
    folder = shutil.copytree(zimage_folder, tmp_path / "model")
    file = next((folder / "vae").glob("*.safetensors"))
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(InputError, match="vae"):
        open_backbone(folder)
