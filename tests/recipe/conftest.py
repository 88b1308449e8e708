from collections.abc import Callable
from pathlib import Path

import pytest

PLAIN = """\
model: shapes
teachers:
  base:
  edit: {lora: "shapes:edit"}
routes:
  - {name: text, teacher: base, bucket: {prompts: [a red circle, "no", 'on', 7, 1e-4]}}
  - {name: edits, teacher: edit, bucket: {shapes: edit, count: 12}, weight: 2}
"""


@pytest.fixture
def plain_text() -> str:
    """A small recipe that is sound."""
    return PLAIN


@pytest.fixture
def recipe_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a recipe and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
