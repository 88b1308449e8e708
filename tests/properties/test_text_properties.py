"""Text from outside: what is shown of it, and which file it means."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from danceopd_core.data.roots import file_of
from danceopd_core.errors import Fault, InputError, encodable, is_shown, shown

from .texts import WILD, taken


@given(st.text(st.characters()))
def test_what_is_shown_is_safe_and_stays_as_it_is(text):
    told = shown(text)
    told.encode()
    assert all(character.isprintable() or character in "\n\u3000\xa0" or character.isspace() for character in told)
    assert not set(told) & {"\x1b", "\x07", "\x9b", "\r", "\x08", "\u202e", "\u2028"}
    assert shown(told) == told


@given(st.text(st.characters()), st.integers(3, 50))
def test_a_limit_is_one(text, limit):
    assert len(shown(text, limit)) <= limit


@given(WILD, WILD)
def test_errors_are_safe(setting, message):
    for error in (InputError(message), InputError.at(setting, message), InputError("x", [Fault(setting, message)] * 2)):
        assert is_shown(error)
        assert encodable(str(error))
    plain = ValueError(message)
    assert is_shown(plain) == (shown(message.replace("\t", " ")) == message.replace("\t", " "))


@given(
    st.lists(st.sampled_from(["..", ".", "a", "b", "link", "~", "", "etc", "x.png"]) | WILD, max_size=6), st.booleans()
)
def test_no_text_means_a_file_outside(tmp_path, parts, absolute):
    inside = tmp_path / "inside"
    (inside / "a" / "b").mkdir(parents=True, exist_ok=True)
    if not (inside / "a" / "link").is_symlink():
        (inside / "a" / "link").symlink_to("/etc")
    text = ("/" if absolute else "") + "/".join(parts)
    found = taken(lambda: file_of(text, inside / "a", (inside,)))
    if found is not None:
        assert Path(os.path.realpath(found)).is_relative_to(os.path.realpath(inside))


@pytest.mark.parametrize("text", ["", "plain", "日本語\u3000テキスト", "émigré", "🙂", "a b"])
def test_what_people_write_is_shown_as_it_is(text):
    assert shown(text) == text
