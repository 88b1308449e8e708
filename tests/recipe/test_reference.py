"""Laws of docs/recipe.md: it is what the schema says, whole and up to date."""

from dataclasses import fields
from pathlib import Path

import yaml

from danceopd_core.algorithm.methods import METHODS
from danceopd_core.algorithm.query import QUERIES
from danceopd_core.algorithm.routers import ROUTERS
from danceopd_core.cli.parser import main
from danceopd_core.models.backbone import COMPONENTS
from danceopd_core.models.sigma_schedule import SIGMA_SCHEDULES
from danceopd_core.recipe.io import parse_recipe
from danceopd_core.recipe.reference import SECTIONS, field_docs, reference
from danceopd_core.recipe.reference_text import EXAMPLE
from danceopd_core.recipe.schema import Recipe

PAGE = Path(__file__).parent.parent.parent / "docs" / "recipe.md"


def test_the_page_is_what_the_command_prints(capsys):
    assert main(["recipes", "--reference"]) == 0
    assert PAGE.read_text(encoding="utf-8") == capsys.readouterr().out, "danceopd recipes --reference > docs/recipe.md"


def test_every_field_of_every_dataclass_is_documented():
    docs = field_docs()
    assert {section.of.__name__ for section in SECTIONS} == set(docs)
    for section in SECTIONS:
        assert list(docs[section.of.__name__]) == [field.name for field in fields(section.of)]
        assert all(text.endswith((".", "...")) for text in docs[section.of.__name__].values())


def test_the_example_is_a_recipe():
    assert EXAMPLE.rstrip() in reference()
    recipe = parse_recipe(yaml.safe_load(EXAMPLE))
    assert recipe != Recipe(recipe.model, recipe.routes, recipe.teachers)


def test_the_page_names_every_choice():
    docs = field_docs()
    for field, table in (("method", METHODS), ("router", ROUTERS), ("sigmas", SIGMA_SCHEDULES)):
        assert all(f"`{name}`" in docs["Recipe"][field] for name in table)
    assert all(f"`{name}`" in docs["Query"]["bias"] for name in QUERIES)
    assert set(docs["Recipe"]["components"].split("`")[1::2]) <= set(COMPONENTS)
