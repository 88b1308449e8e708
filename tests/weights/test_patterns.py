"""Patterns from a LoRA's settings match as peft's regular expressions do, and none takes long."""

import re
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

from danceopd_core.errors import InputError
from danceopd_core.weights.patterns import MOST_PATTERNS, Pattern, PatternTable

NAMES = (
    "layers.0.attention.to_q", "layers.1.attention.to_out.0", "layers.10.feed_forward.w2", "to_q", "norm_out.linear",
    "all_final_layer.2-1.linear", "x_embedder", "a", "aaab", "a.b", "..", "",
)  # fmt: skip
PIECES = (
    *"aqt_.^$|*+?()[]01-", "to_q", "layers", r"\.", r"\d", r"\w", r"\D", "[0-9]", "[^.]", ".*", "(?:", "{2}", "{1,}",
    "{,2}", "{0,3}?", "w2", "+?", "linear",
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=9).map("".join))
def test_what_is_read_matches_as_pythons_own_engine(text):
    try:
        pattern = Pattern(text)
    except InputError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ends, covers = re.compile(rf"(.*\.)?({text})$"), re.compile(text)
    for name in NAMES:
        assert pattern.ends(name) == bool(ends.match(name)), name
        assert pattern.covers(name) == bool(covers.fullmatch(name)), name
        assert (PatternTable({text: 1}).get(name) == 1) == pattern.ends(name), name


@pytest.mark.parametrize(
    "patterns",
    [
        ["to_q", "layers.0.attention.to_q"],
        ["layers.0.attention.to_q", "to_q"],
        ["^to_q", "^layers.0.attention.to_q", "^layers"],
        [r".*\.layers\.1\..*(to_q|to_out.0)$", r"layers\.1\..*to_out\.0"],
        ["o_q", "2", "0", "to_out.0"],
        ["to_q|w2", r"layers\.\d+\.(attention\.to_[qkv]|feed_forward\.w[13])"],
        ["2-1.linear", "linear", "l.near"],
    ],
)
def test_the_first_pattern_that_matches_counts_as_in_peft(patterns):
    table = PatternTable({pattern: pattern for pattern in patterns})
    for name in NAMES:
        assert table.get(name, name) == get_pattern_key(patterns, name), name


HOSTILE = (
    "(a+)+$", "(a|a)*$", "(a*)*b", "((a*)*)*c", "(.*)*x", r"(.*\.)*(.*\.)*(.*\.)*z", "(a|aa)+$", "([a-z]+)*!",
    "(.*a){20}$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(a?){200}a{200}", "((((((((((a+)+)+)+)+)+)+)+)+)+)+", "(" * 5000,
    "a{99999999}", "[", "(a|b|ab)*" * 12, ".*" * 40,
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_no_pattern_takes_long(text):
    start = time.process_time()
    pattern, refused = None, ""
    try:
        pattern = Pattern(text)
    except InputError as error:
        refused = str(error)
    for name in ("a" * 200 + "!", "a" * 200, "a." * 100) if pattern else ():
        pattern.ends(name)
        pattern.covers(name)
    assert len(refused.splitlines()) <= 1
    assert len(refused) < 200
    assert time.process_time() - start < 0.3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (r"(?<=a)b", r"uses \(\?"),
        (r"(?P<x>a)", r"uses \(\?"),
        (r"(a)\1", r"uses \\1"),
        (r"\bq", r"uses \\b"),
        ("a)|(.*", "closes a group"),
        ("(a", "is not a complete"),
        ("[a", "is not a complete"),
        ("a**", "repeats a repetition"),
        ("*a", "repeats nothing"),
        ("^*", "repeats an anchor"),
        ("a{3,2}", "repeats from 3 to 2"),
        ("[z-a]", "range"),
        ("a" * 1001, "1001 characters"),
    ],
)
def test_what_is_not_read_is_refused_with_the_reason(text, reason):
    with pytest.raises(InputError, match=reason):
        Pattern(text)


def test_a_table_of_many_patterns_takes_no_time():
    layers = [f"single_transformer_blocks.{block}.attn.to_{part}" for block in range(150) for part in "qkv"]
    table = PatternTable({f"^{layer}": number for number, layer in enumerate(layers)})
    start = time.process_time()
    assert [table.get(layer) for layer in layers] == list(range(len(layers)))
    assert time.process_time() - start < 2
    with pytest.raises(InputError, match="more than"):
        PatternTable(dict.fromkeys(map(str, range(MOST_PATTERNS + 1)), 1))
    with pytest.raises(InputError, match="too many patterns with repetitions"):
        PatternTable({f"(a|b)*{number}": number for number in range(1000)})
