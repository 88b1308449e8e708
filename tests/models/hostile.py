"""What the tests of hostile model folders share: a sound folder of every family, and what is changed in it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from danceopd_core.errors import InputError
from danceopd_core.models import part_files
from danceopd_core.models.loading import part_folder
from danceopd_core.models.part_rules import PARTS
from danceopd_core.models.registry import family_of, folder_faults, open_backbone

from ..tiny import save_zimage
from ..tiny_families import save_flux, save_flux2, save_krea2, save_qwen, save_qwen21, save_sd3
from ..versions import by_family

SAVED = {
    "zimage": save_zimage,
    "sd3": save_sd3,
    "flux": save_flux,
    "flux2": save_flux2,
    "krea2": save_krea2,
    "qwen21": save_qwen21,
    "qwen": lambda folder: save_qwen(folder, "QwenImageEditPlusPipeline"),
}


@pytest.fixture(scope="module", params=by_family(SAVED))
def sound(request, tmp_path_factory) -> Path:
    return SAVED[request.param](tmp_path_factory.mktemp("sound") / request.param)


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    return shutil.copytree(sound, tmp_path / "model")


def settings_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every part's file of settings."""
    family, _ = family_of(folder)
    for part, name in PARTS[family.module].items():
        file = "tokenizer_config.json" if "tokenizer" in part else part_files.CONFIG_FILES.get(name, "config.json")
        yield name, part_folder(folder, part) / file


def changed(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def refusal(folder: Path) -> str:
    """The one error of opening the folder, which its faults tell too."""
    with pytest.raises(InputError) as caught:
        open_backbone(folder)
    assert str(caught.value) in list(folder_faults(folder))
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)
    return str(caught.value)
