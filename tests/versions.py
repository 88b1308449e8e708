"""What a test can only say of later releases than the oldest that the pack runs on."""

import pytest

from danceopd_core.models.loading import at_least


def needs_diffusers(release: str) -> pytest.MarkDecorator:
    """For a test of what diffusers itself has since that release."""
    return pytest.mark.skipif(not at_least("diffusers", release), reason=f"diffusers {release} has it first")
