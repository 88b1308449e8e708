"""What a test can only say of later releases than the oldest that the pack runs on."""

import pytest

from danceopd_core.models.loading import at_least
from danceopd_core.models.registry import FAMILIES


def needs_diffusers(release: str) -> pytest.MarkDecorator:
    """For a test of what diffusers itself has since that release."""
    return pytest.mark.skipif(not at_least("diffusers", release), reason=f"diffusers {release} has it first")


def needs_pipeline(pipeline: str):
    """For a test of a pipeline that later releases have: a mark, or none."""
    release = next(family.needs for family in FAMILIES.values() if pipeline in family.pipelines)
    return needs_diffusers(release) if release else ()


def by_family(names) -> list:
    """Parameters that begin with the names of families; those that need a later diffusers are skipped without it."""
    needs = {name: getattr(FAMILIES.get(name.split("-")[0]), "needs", "") for name in names}
    return [pytest.param(name, marks=needs_diffusers(release) if release else ()) for name, release in needs.items()]
