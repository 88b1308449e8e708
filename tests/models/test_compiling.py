"""Compiled blocks answer as eager ones do, and are compiled once, whichever adapter is active."""

import shutil

import pytest
import torch

from danceopd_core.errors import InputError
from danceopd_core.models.compiling import check_compile
from danceopd_core.models.registry import open_backbone

from ..tiny import save_zimage
from ..tiny_families import save_flux, save_qwen, save_sd3
from .compiled import answers, graphs, pair
from .test_qwen import small

SIZE = 32
SAVED = {"zimage": save_zimage, "sd3": save_sd3, "flux": save_flux, "qwen": save_qwen}
PROMPTS = ["a red cat", "a prompt that is much longer than the others, and than a multiple of 32 tokens", "x", "blue"]


@pytest.fixture(scope="module", params=SAVED)
def backbone(request, tmp_path_factory):
    opened = open_backbone(SAVED[request.param](tmp_path_factory.mktemp(request.param)))
    return small(opened) if opened.family == "qwen" else opened


def asked(backbone, size=2, first=0, pixels=SIZE, texts=None):
    """States and texts, by number or from the first on."""
    generator = torch.Generator().manual_seed(first)
    x = torch.randn(size, *backbone.latent_shape(pixels, pixels), generator=generator)
    cond = backbone.encode(PROMPTS).select(texts or [(first + row) % len(PROMPTS) for row in range(size)])
    return x, torch.linspace(0.8, 0.3, size), cond


def close(one, other):
    for found, expected in zip(one, other, strict=True):
        assert (found - expected).norm() / expected.norm() < 1e-5


@pytest.mark.long
@pytest.mark.parametrize(("backend", "checkpointing"), [("eager", True), ("inductor", False)])
def test_what_a_block_reads_is_data(backbone, backend, checkpointing):
    """As many codes as kinds of blocks and passes, made once. A sample alone has its own: by the quick backend only."""
    eager, compiled = pair(backbone, backend, checkpointing)
    alone = [1] if backend == "eager" else []
    for question in (*(asked(backbone, size) for size in (*alone, 2)), asked(backbone, texts=(0, 0))):
        close(answers(compiled, *question), answers(eager, *question))
    known = graphs()
    others = [(size, 3) for size in alone]
    for question in (*(asked(backbone, *each) for each in [(2, 1), (3, 2), *others]), asked(backbone, pixels=48)):
        close(answers(compiled, *question), answers(eager, *question))
    with torch.no_grad():
        for fields in (eager, compiled):
            for factor in fields.adapters.parameters():
                factor.mul_(1.5)  # as an optimizer changes it
    close(answers(compiled, *asked(backbone)), answers(eager, *asked(backbone)))
    assert graphs() == known


def test_compilers_are_looked_for(monkeypatch, tmp_path):
    check_compile(torch.device("cpu"))
    with pytest.raises(InputError, match="the device is mps"):
        check_compile(torch.device("mps"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="there is no no-such-compiler: install it, or leave compile out"):
        check_compile(torch.device("cpu"))
    monkeypatch.setenv("CXX", shutil.which("true"))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(InputError, match=r"there is no .*Python\.h"):
        check_compile(torch.device("cpu"))
