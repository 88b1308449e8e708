"""Laws of typed reading: what a scalar means depends on what is declared, and nothing but that."""

import pickle
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Literal

import pytest

from danceopd_core.errors import Fault, InputError, refuse
from danceopd_core.recipe.faulty import FAULTY, short
from danceopd_core.recipe.limits import Range, Text
from danceopd_core.recipe.parsing import build, plain
from danceopd_core.recipe.yaml_text import read_yaml


@dataclass(frozen=True)
class Inner:
    rate: Annotated[float, Range(0, above=True)] = 1.0
    pair: tuple[float, float] = (0.5, 0.5)


@dataclass(frozen=True)
class Outer:
    name: Text
    inner: Inner = field(default_factory=Inner)
    flag: bool = False
    count: int = 1
    kind: Literal["plain", "fancy"] = "plain"
    note: str | None = None
    words: tuple[str, ...] = ()
    mix: str | dict[str, float] = ""


def read(text: str) -> tuple[object, list[str]]:
    faults: list[Fault] = []
    built = build(Outer, read_yaml(text, faults), "", faults)
    return built, [str(fault) for fault in faults]


@pytest.mark.parametrize("word", ["no", "off", "yes", "on", "true", "null", "~", "1e-4", "0x1F", "1:30", "2024-01-01"])
def test_text_stays_text_where_text_is_declared(word):
    assert read(f"{{name: {word}, words: [{word}]}}") == (Outer(word, words=(word,)), [])


@pytest.mark.parametrize(
    ("word", "meant"), [("no", False), ("Off", False), ("YES", True), ("on", True), ("true", True)]
)
def test_switches_are_read_where_a_bool_is_declared(word, meant):
    assert read(f"{{name: x, flag: {word}}}")[0] == Outer("x", flag=meant)


@pytest.mark.parametrize(
    ("word", "meant"), [("3e3", 3000), ("3_000", 3000), ("3000.0", 3000), ("-7", -7), ("+1", 1), ("010", 10)]
)
def test_whole_numbers(word, meant):
    assert read(f"{{name: x, count: {word}}}")[0] == Outer("x", count=meant)


@pytest.mark.parametrize("word", ["1.5", "1e-4", "ten", "inf", ".nan", "1e400", "9" * 5000, "0x10", "true", "[1]", ""])
def test_what_is_no_whole_number_is_refused(word):
    made, faults = read(f"{{name: x, count: {word}}}")
    assert made.count is FAULTY
    assert len(faults) == 1
    assert faults[0].startswith("count: expected a ")
    assert len(faults[0]) < 150


@pytest.mark.parametrize("word", ["1e-4", "1E-4", "0.0001", ".0001", "1_0e-5"])
def test_numbers(word):
    assert read(f"{{name: x, inner: {{rate: {word}}}}}")[0] == Outer("x", Inner(rate=1e-4))


@pytest.mark.parametrize("word", ["inf", "-inf", "nan", "1e999"])
def test_numbers_are_finite(word):
    assert read(f"{{name: x, inner: {{rate: {word}}}}}")[1] == [f"inner.rate: expected a finite number, not '{word}'"]


@pytest.mark.parametrize("word", ["null", "None", "~", "", "''"])
def test_nothing_is_none_where_none_is_declared(word):
    assert read(f"{{name: x, note: {word}}}")[0] == Outer("x", note=None)


def test_blank_parts_have_their_defaults():
    assert read("name: x\ninner:\nwords:\n")[0] == Outer("x")


def test_plain_python_values_are_read_as_text_is():
    faults: list[Fault] = []
    given = {"name": "x", "flag": True, "count": 3.0, "inner": {"rate": 2, "pair": (0, 1)}, "note": None}
    assert build(Outer, given, "", faults) == Outer("x", Inner(2.0, (0.0, 1.0)), flag=True, count=3)
    assert not faults
    assert isinstance(build(float, 1, "", faults), float)


@pytest.mark.parametrize(
    "given", [{"flag": 1}, {"count": True}, {"count": 1.5}, {"name": 7}, {"words": "a cat"}, {"inner": 3}, {"note": []}]
)
def test_plain_python_values_of_another_type_are_refused(given):
    faults: list[Fault] = []
    build(Outer, {"name": "x", **given}, "", faults)
    (fault,) = faults
    assert fault.setting.startswith(next(iter(given)))


def test_a_part_by_name_or_by_weights():
    assert read("{name: x, mix: base}")[0] == Outer("x", mix="base")
    assert read("{name: x, mix: {a: 0.25, b: 75e-2}}")[0] == Outer("x", mix={"a": 0.25, "b": 0.75})


def test_every_fault_has_its_whole_path():
    made, faults = read("{nam: x, inner: {rate: 0, pair: [1], zzz: 2}, kind: fanci, words: [a, [b]], mix: {a: b}}")
    assert made.inner.rate is FAULTY
    assert faults == [
        "nam: there is no such setting (did you mean 'name'?)",
        "inner.zzz: there is no such setting: there are rate, pair",
        "inner.rate: 0.0 is out of range: it must be above 0",
        "inner.pair: expected a list of 2, not a list of 1",
        "kind: 'fanci' is not one of plain, fancy (did you mean 'fancy'?)",
        "words[1]: expected text, not a list of 1",
        "mix.a: expected a number, not 'b'",
    ]


def test_a_setting_on_the_wrong_floor_is_found():
    assert "(did you mean 'inner.rate'?)" in read("{name: x, rate: 2}")[1][0]


def test_missing_settings_are_faults():
    assert read("")[1] == ["name: it is required, but missing"]
    assert read("name: ' '")[1] == ["name: it must not be empty"]


def test_duplicate_keys_are_faults_with_their_lines():
    faults: list[Fault] = []
    read_yaml("a: 1\nb: {c: 1, c: 2}\na: 3\n", faults)
    assert sorted(fault.message for fault in faults) == ["line 2: 'c' is given twice", "line 3: 'a' is given twice"]


@pytest.mark.parametrize(
    "text",
    ["a: [1", "\ta: b", "a: b: c", "? [a]\n: b", "&a [*a]", "a: *b", "--- a\n--- b", "a: \x00", "[" * 20000, "%bad"],
)
def test_what_is_no_yaml_is_a_fault(text):
    faults: list[Fault] = []
    assert read_yaml(text, faults) is FAULTY
    assert len(faults) == 1
    assert "\n" not in str(faults[0])


def test_tags_run_nothing():
    faults: list[Fault] = []
    assert read_yaml("!!python/object/apply:os.system [exit 1]", faults) == ["exit 1"]


def test_a_bomb_of_aliases_is_a_fault_of_one_line():
    text = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmn"))
    made, faults = read(text + "name: *n")
    assert made is FAULTY
    assert len(faults) == 1
    assert len(faults[0]) < 200


WIDE = "a: &a [" + "x, " * 3000 + "x]\nb: [" + "*a, " * 3000 + "*a]"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "64 deep"),
        ("{a: " * 3000, "64 deep"),
        ("\n".join(" " * depth + "a:" for depth in range(500)), "64 deep"),
        ("? " * 3000, "64 deep"),
        (WIDE, "50000 values"),
        ("- x\n" * 60_000, "50000 values"),
        ("a: &a {b: *a}", "inside of what it stands for"),
        ("a: " + "x" * (4 * 2**20), "characters"),
        ('a: "\\UFFFFFFFF"', "not valid YAML"),
    ],
    ids=["flow", "mappings", "block", "keys", "aliases", "values", "circle", "size", "escape"],
)
def test_a_document_that_would_take_all_memory_is_a_fault_of_one_line(text, told):
    faults: list[Fault] = []
    assert read_yaml(text, faults) is FAULTY
    assert len(faults) == 1
    assert told in str(faults[0])
    assert len(str(faults[0])) < 200


def test_aliases_stand_for_what_they_name():
    faults: list[Fault] = []
    made = read_yaml("a: &a [x, y]\nb: {c: *a, d: *a}", faults)
    assert made == {"a": ["x", "y"], "b": {"c": ["x", "y"], "d": ["x", "y"]}}
    assert not faults


def test_short_stays_short():
    assert all(len(short(value)) < 70 for value in ["x" * 1000, "\n" * 1000, 10**400, [0] * 1000, {"a": 1}])


def test_limits():
    assert not Range(0, 1)(1)
    assert Range(0, 1, below=True)(1) == "1 is out of range: it must be at least 0 and below 1"
    assert Range(low=1)(0) == "0 is out of range: it must be at least 1"


def test_plain_and_build_are_inverse():
    made = Outer("x", Inner(0.3, (1.0, 2.0)), True, 5, "fancy", "n", ("a", ""), {"a": 1.0})
    for sparse in (False, True):
        assert build(Outer, plain(made, sparse), "", []) == made
    assert plain(Outer("x"), sparse=True) == {"name": "x"}


def test_refuse_raises_all_or_nothing():
    refuse("it", [])
    two = Fault("a.b", "is wrong"), Fault("", "the rest too")
    with pytest.raises(InputError, match=r"^it has 2 faults:\n  a\.b: is wrong\n  the rest too$") as caught:
        refuse("it", iter(two))
    assert caught.value.faults == two
    with pytest.raises(InputError, match=r"^it has a fault:\n  a\.b: is wrong$"):
        refuse("it", two[:1])


def test_every_input_error_holds_faults():
    assert InputError("just text").faults == (Fault("", "just text"),)
    assert str(InputError("just text")) == "just text"
    assert InputError.at("a.b", "is wrong").faults == (Fault("a.b", "is wrong"),)
    assert str(InputError.at("a.b", "is wrong")) == "a.b: is wrong"
    whole = InputError("it has a fault:", [Fault("a", "is wrong")])
    copy = pickle.loads(pickle.dumps(whole))  # as it comes from another process
    assert (str(copy), copy.faults) == (str(whole), whole.faults)
