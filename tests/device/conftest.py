from collections.abc import Iterator

import pytest

from .card import exact
from .cases import small_sources


@pytest.fixture
def on_card() -> Iterator[None]:
    """Exact float32, and sources of edits at a size for tests."""
    with exact(), small_sources():
        yield
