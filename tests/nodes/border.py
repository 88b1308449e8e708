"""Run by the tests in a Python that has ComfyUI's requirements: tries the border to ComfyUI without a server.

Usage: border.py COMFYUI PACK
"""

# ruff: noqa: PT017 (a script, without pytest)
import importlib.util
import sys
import tempfile
import weakref
from pathlib import Path


class Folder:
    """The source of a model that was distilled to so many steps, or was not."""

    def __init__(self, steps: int | None) -> None:
        self.few_steps = lambda: steps

    def facts(self):
        return sys.modules["pack.danceopd_core.runs.plans.sources"].ModelFacts()


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
    # Files of weights that no model can use are refused when a prompt is validated, by their headers.
    import folder_paths
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as name:
        for kind in ("loras", "diffusion_models"):
            (Path(name) / kind).mkdir()
            folder_paths.add_model_folder_path(kind, str(Path(name) / kind), is_default=True)
        loras, one = Path(name) / "loras", torch.ones(2, 2)
        save_file({"a.lora_A.weight": one, "a.lora_B.weight": one.clone()}, loras / "good.safetensors")
        save_file({"lora_unet_a.lokr_w1": one}, loras / "lokr.safetensors")
        save_file({"lora_te_a.lora_down.weight": one}, loras / "te.SAFETENSORS")
        (loras / "torn.safetensors").write_bytes((loras / "good.safetensors").read_bytes()[:-3])
        save_file({"a.weight": one, "a.weight_scale": one.clone()}, Path(name) / "diffusion_models" / "fp8.safetensors")
        nodes = sys.modules["pack"].__name__ + ".nodes"
        fields, student, samples = (
            importlib.import_module(f"{nodes}.{part}") for part in ("field_nodes", "student_nodes", "sample_nodes")
        )
        teacher, starts, loads = (
            node.validate_inputs for node in (fields.TeacherField, student.StudentLora, fields.LoadModel)
        )
        assert teacher() is starts() is loads() is True  # inputs that other nodes give
        assert teacher(lora="good.safetensors", checkpoint="none") is starts(start="good.safetensors") is True
        assert teacher(lora="shapes:edit") is starts(start="fresh", over="none") is True
        for node in (samples.SampleStudent, samples.Compare, samples.Evaluate):
            assert node.validate_inputs() is node.validate_inputs(lora_name="good.safetensors") is True
            assert "belong to LoKr" in node.validate_inputs(lora_name="lokr.safetensors")
        for told, parts in (
            (teacher(lora="lokr.safetensors"), ("lora: ", "belong to LoKr")),
            (teacher(lora="torn.safetensors"), ("lora: ", "is not a readable safetensors file")),
            (teacher(lora="../x.safetensors"), ("lora: ", "is not in ComfyUI's folders")),
            (
                starts(start="lokr.safetensors", over="torn.safetensors"),
                ("start: ", "LoKr", "over: ", "not a readable"),
            ),
            (loads(transformer="fp8.safetensors"), ("transformer: ", "quantised weights")),
            (teacher(lora="lokr.safetensors", checkpoint="fp8.safetensors"), ("LoKr", "checkpoint: ", "quantised")),
        ):
            assert isinstance(told, str), told
            assert all(part in told for part in parts), told

        folder_paths.set_input_directory(name)
        (Path(name) / "prompts.CSV").write_text("prompt\na\n")
        assert border.csv_choices() == {"prompts.CSV": str(Path(name) / "prompts.CSV")}
    # A preset of Train is taken with its own values, refused beside others, and gives way to a model of few steps.
    train = importlib.import_module(f"{nodes}.train_nodes").TrainStudent.validate_inputs
    quality = importlib.import_module(f"{nodes}.quality")
    for name, preset in quality.PRESETS.items():
        own = {**preset, "quality": name}
        assert train(**{key: [value] for key, value in own.items()}) is True
        assert train(quality=[name], rollout_steps=None) is True  # which another node gives
        for key, other in {"rollout_steps": 12, "k": 2, "bias": "high", "sigma_low": 0.1, "sigma_high": 0.9}.items():
            told = train(**{key: [value] for key, value in (own | {key: other}).items()})
            assert isinstance(told, str), key
            assert told.startswith(f"{key}: {other} is not the {preset[key]} of quality '{name}'"), told
            assert train(quality=["custom"], k=[1], rollout_steps=[12], bias=["high"]) is True
            try:
                quality.resolved(own | {key: other}, Folder(None))
            except InputError as error:
                assert str(error) in told
            else:
                raise AssertionError("another value was passed over")
        assert quality.resolved(own, Folder(None)) == preset
        assert quality.resolved(own, Folder(4)) == preset | {"rollout_steps": 4}
    assert quality.resolved({"rollout_steps": 12}, Folder(4)) == {"rollout_steps": 12}  # saved before there were any
    (picture,) = border.as_arrays(torch.ones(1, 4, 6, 4), "source")
    assert picture.shape == (4, 6, 3)
    print("\nheld")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
