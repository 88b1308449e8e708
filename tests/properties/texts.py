"""What several properties share: strings, trees, and what counts as taken or refused."""

from hypothesis import strategies as st

from danceopd_core.errors import InputError, is_shown

WILD = st.text(st.characters(), max_size=20) | st.sampled_from(
    ["\ud800", "\x1b[2J", "\x00", "a\ud83d", "\u202e", "null", "1e999", "~", "..", "shapes", "[", "{a: b", "x" * 3000]
)
"""Text that may hold anything, halves of characters and control characters too."""
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WILD,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WILD, inner, max_size=4),
    max_leaves=12,
)
"""What JSON and YAML can hold."""


def taken(read):
    """What `read` gives, None for what was refused as it should be: in words that a terminal may show."""
    refused = None
    try:
        return read()
    except InputError as error:
        refused = InputError(str(error))
    assert str(refused)
    assert is_shown(refused)
    return None
