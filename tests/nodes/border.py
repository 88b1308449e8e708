"""Run by the tests in a Python that has ComfyUI's requirements: tries the border to ComfyUI without a server.

Usage: border.py COMFYUI PACK
"""

# ruff: noqa: PT017 (a script, without pytest)
import importlib.util
import sys
import weakref
from pathlib import Path


def main(comfyui: Path, pack: Path) -> None:
    sys.path.insert(0, str(comfyui))
    from comfy.cli_args import args

    args.cpu = True
    import comfy.model_management as management
    import server  # noqa: F401
    import torch

    spec = importlib.util.spec_from_file_location("pack", pack / "__init__.py", submodule_search_locations=[str(pack)])
    sys.modules["pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["pack"])
    border = sys.modules["pack.nodes._comfy"]
    InputError = sys.modules["pack.danceopd_core.errors"].InputError

    # A network that is opened here can be trained through, although the node runs in inference mode.
    with torch.inference_mode():
        with border.workspace(training=True):
            assert management.in_training
            layer = torch.nn.Linear(2, 2)
            layer(torch.ones(1, 2)).sum().backward()
            assert layer.weight.grad is not None
        assert torch.is_inference_mode_enabled()
        assert not management.in_training
        with border.workspace(training=False):
            assert not torch.is_grad_enabled()
            assert not management.in_training
    assert torch.is_grad_enabled()

    # What failed holds no model while its error is handled, and leaves nothing switched on.
    def fail(error):
        global held
        model = torch.nn.Linear(2, 2)
        held = weakref.ref(model)
        raise error

    for error in (ValueError("x"), management.InterruptProcessingException()):
        try:
            with border.workspace(training=True):
                fail(error)
        except type(error):
            assert held() is None
            assert not management.in_training
        else:
            raise AssertionError("the error was lost")

    # Out of memory names the settings that help.
    try:
        with border.workspace(training=True):
            fail(torch.cuda.OutOfMemoryError("tried to allocate"))
    except RuntimeError as error:
        assert "gradient_checkpointing" in str(error)
        assert "batch" in str(error)

    # Pictures and choices that are none are refused by the name of their widget.
    bad = torch.zeros(1, 4, 4, 3)
    bad[0, 0, 0, 0] = float("nan")
    for call in (
        lambda: border.as_arrays(bad, "source"),
        lambda: border.chosen(border.lora_choices(), "../../x.safetensors", "source"),
        lambda: border.chosen(border.model_choices(), "owner/name", "source"),  # no workflow makes anyone download
        lambda: border.chosen(border.diffusion_choices(), "/etc/passwd", "source"),
    ):
        try:
            call()
        except InputError as error:
            assert "source" in str(error)
        else:
            raise AssertionError("it was taken")
    (picture,) = border.as_arrays(torch.ones(1, 4, 6, 4), "source")
    assert picture.shape == (4, 6, 3)
    print("\nheld")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
