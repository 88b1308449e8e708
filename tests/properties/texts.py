"""Strategies that several properties share."""

from hypothesis import strategies as st

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
