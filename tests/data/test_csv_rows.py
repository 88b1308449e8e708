"""Laws of CSV files: read as the official trainer reads them; what it would misread in silence is refused."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from danceopd_core.data.csv_rows import numbered_rows, read_csv
from danceopd_core.data.csv_text import CsvText
from danceopd_core.errors import InputError


def prompts(path, task=None) -> list[str]:
    return [item.prompt for item in read_csv(path, task)]


def test_rows_with_their_pictures(csv_file, tmp_path):
    path = csv_file(
        "prompt,task,source_image,target_image,extra",
        "  make   it red ,local_edit,in/a.png, out/a.png ,x",
        '"a cat, sitting",,,,',
        "far,global_edit,/elsewhere/b.png,,",
    )
    first, second, third = read_csv(path)
    assert (first.prompt, first.task) == ("make it red", "local_edit")
    assert (first.source, first.target) == (tmp_path / "in" / "a.png", tmp_path / "out" / "a.png")
    assert (second.prompt, second.task, second.source, second.target) == ("a cat, sitting", "default", None, None)
    assert str(third.source) == "/elsewhere/b.png"


def test_the_home_folder_is_expanded(csv_file, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(read_csv(csv_file("prompt,source_image", "a,~/b.png"))[0].source) == "/home/someone/b.png"


@pytest.mark.parametrize(
    ("mapping", "prompt"),
    [
        (json.dumps({"caption": "c", "prompt": "p"}), "p"),
        (json.dumps({"other": "o", "caption": " c\n d "}), "c d"),
        (json.dumps({"prompt": "", "caption": None, "empty": "", "long": "l", "later": "x"}), "l"),
        (str({"prompt": "it's"}), "it's"),
    ],
)
def test_a_blank_prompt_is_taken_from_the_mapping(csv_file, mapping, prompt):
    quoted = '"' + mapping.replace('"', '""') + '"'
    assert prompts(csv_file("prompt,caption_dict", f",{quoted}", f"own,{quoted}")) == [prompt, "own"]
    assert prompts(csv_file("caption_dict", quoted)) == [prompt]


NO_TEXT = [
    "{'prompt': 0x" + "f" * 4000 + "}",
    *('{"prompt": %s}' % ("[" * deep + "]" * deep) for deep in (960, 980, 990)),
]
"""Values that Python reads and cannot write: numbers of thousands of digits, deep lists."""


@pytest.mark.parametrize("mapping", NO_TEXT, ids=len)
def test_values_that_have_no_text_end_in_no_traceback(csv_file, mapping):
    assert prompts(csv_file("prompt,caption_dict", ',"' + mapping.replace('"', '""') + '"', "a,"))[-1] == "a"


def test_a_user_with_a_null_character_is_no_traceback(csv_file):
    assert "b.png" in str(read_csv(csv_file("prompt,source_image", "a,~some\0one/b.png"))[0].source)


@pytest.mark.parametrize("mapping", ["[1]", "{", "__import__('os')", "(" * 5000, "7", "{}", "['prompt']"])
def test_rows_without_a_prompt_are_passed_over(csv_file, mapping):
    assert prompts(csv_file("prompt,caption_dict", f',"{mapping}"', "", "a,")) == ["a"]


def test_rows_are_numbered_as_lines_of_the_file(csv_file):
    rows = numbered_rows(csv_file("prompt,task", "a,t", "", ",t", "b,u"))
    assert [(row.number, row.item.prompt) for row in rows] == [(2, "a"), (5, "b")]


def test_rows_of_one_task(csv_file):
    path = csv_file("prompt,task", "a,edit", "b,", "c, edit ")
    assert prompts(path, "edit") == ["a", "c"]
    assert prompts(path, "default") == ["b"]
    assert prompts(path) == ["a", "b", "c"]
    with pytest.raises(
        InputError, match=r"no task in .* is named 'edits' \(did you mean 'edit'\?\): there are edit, def"
    ):
        read_csv(path, "edits")


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    (tmp_path / "a.csv").write_bytes("\ufeffprompt\r\nsüß 猫\r\n".encode())
    assert prompts(tmp_path / "a.csv") == ["süß 猫"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column prompt: it has none"),
        (b"text,task\na,b\n", "has no column prompt: it has text, task"),
        (b"prompt\n", "holds no prompts"),
        (b"prompt,task\n ,edit\n", "holds no prompts"),
        (b"prompt,task\nok,t\na cat, sitting,edit\n", "row 3, is longer than the header"),
        (b"prompt\ncaf\xe9\n", "is not UTF-8 text"),
        (b"prompt\na\x00b\n" + b"x" * 200_000, "is not a readable CSV file|cannot be read"),
    ],
)
def test_files_that_would_be_misread_are_refused(tmp_path, content, message):
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_csv(tmp_path / "bad.csv")
    assert "bad.csv" in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        "prompt, task, source_image",
        " prompt ,task ,\tsource_image",
        "\ufeffprompt, task,source_image ",
        '"prompt", "task", "source_image"',
    ],
)
def test_spaces_around_the_names_of_columns_are_no_part_of_them(csv_file, tmp_path, header):
    for item in read_csv(csv_file(header, "make it blue, local_edit, a.png", '"add, too", local_edit, "a.png"')):
        assert (item.task, item.source) == ("local_edit", tmp_path / "a.png")


def test_a_cell_in_quotes_behind_a_space_is_one_cell(csv_file, tmp_path):
    (item,) = read_csv(csv_file("task, prompt, source_image", 'edit, "a cat, sitting", a.png'))
    assert (item.prompt, item.source) == ("a cat, sitting", tmp_path / "a.png")


def test_quotes_within_quotes_and_lines_within_cells_are_kept(csv_file):
    rows = numbered_rows(csv_file("prompt,task", '"say ""hello""",a', '"two', 'lines",b', "last,c"))
    assert [(row.number, row.item.prompt, row.item.task) for row in rows] == [
        (2, 'say "hello"', "a"),
        (4, "two lines", "b"),
        (5, "last", "c"),
    ]


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (['"a cat,edit', "a dog,edit", "a bird,edit"], 2),
        (["a cat,edit", '"a dog,edit', "a bird,edit"], 3),
        (['"a cat,edit', '"a dog",edit'], 2),
        (["a cat,edit", "", '"a "dog",edit'], 4),
        (["a cat,edit", 'a bird,"edit'], 3),
        (['"a cat"s,edit'], 2),
    ],
)
def test_a_quote_that_is_not_closed_is_told_with_its_line_and_swallows_nothing(csv_file, lines, line):
    with pytest.raises(
        InputError, match=rf"prompts\.csv is not a readable CSV file: the row that begins in line {line}: "
    ):
        read_csv(csv_file("prompt,task", *lines))


@pytest.mark.parametrize(
    ("column", "known"),
    [
        ("source", "source_image"),
        ("image", "source_image"),
        ("Source_Image", "source_image"),
        ("source image", "source_image"),
        ("sourceimage", "source_image"),
        ("input_image", "source_image"),
        ("src_img", "source_image"),
        ("image_path", "source_image"),
        ("sorce_image", "source_image"),
        ("target", "target_image"),
        ("edited_image", "target_image"),
        ("output image", "target_image"),
        ("Task", "task"),
        ("tasks", "task"),
        ("task_type", "task"),
    ],
)
def test_a_column_that_looks_like_a_known_one_is_told_with_it(csv_file, column, known):
    with pytest.raises(InputError, match=rf"column that is not read, '{column}' looks like {known}: rename it"):
        read_csv(csv_file(f"prompt,{column}", "a,b"))
    assert prompts(csv_file(f"prompt,{known},{column}", "a,,b")) == ["a"]  # then it is something else


def test_a_header_of_thousands_of_columns_is_refused_at_once(csv_file):
    with pytest.raises(InputError, match="has 60001 columns, more than 1000"):
        read_csv(csv_file("prompt" + ",c" * 60_000, "a"))


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_columns_that_are_separated_otherwise_are_told(csv_file, separator):
    with pytest.raises(InputError, match=r"\(columns are separated by commas\)"):
        read_csv(csv_file(f"prompt{separator}task", f"a{separator}b"))


@pytest.mark.parametrize("column", ["promt", "Prompt", "caption", "text", "prompts"])
def test_a_misspelt_prompt_is_told(csv_file, column):
    with pytest.raises(
        InputError, match=rf"has no column prompt: it has {column}, task \('{column}' looks like prompt"
    ):
        read_csv(csv_file(f"{column},task", "a,b"))


@pytest.mark.parametrize("column", ["extra", "mask", "id", "score", "width", "notes", "seed", "category", ""])
def test_other_columns_are_passed_over(csv_file, column):
    assert prompts(csv_file(f"prompt,{column}", "a,b")) == ["a"]


def test_a_column_that_is_there_twice_is_refused(csv_file):
    with pytest.raises(InputError, match="has the column prompt twice"):
        read_csv(csv_file("prompt,task, prompt", "a,b,c"))


def test_a_file_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "absent.csv"
    with pytest.raises(InputError, match=f"{path} cannot be read"):
        read_csv(path)
    with pytest.raises(InputError, match=f"{tmp_path} holds no pictures with captions"):
        read_csv(tmp_path)


CELLS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from('",\n\r '), max_size=8
)
TABLES = st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1, max_size=5))


@settings(max_examples=300, deadline=None)
@given(TABLES, st.sampled_from(["\n", "\r\n"]))
def test_every_table_that_a_writer_makes_is_read_as_it_was(table, end):
    buffer = io.StringIO()
    header = [f"c{number}" for number in range(len(table[0]))]
    csv.writer(buffer, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([header, *table])
    read = [
        list(row.cells.values()) for row in CsvText(Path("a.csv"), io.StringIO(buffer.getvalue(), newline="")).rows()
    ]
    assert read == table


@settings(max_examples=300, deadline=None)
@given(TABLES, st.data())
def test_a_table_that_is_cut_off_loses_its_last_row_or_is_refused(table, data):
    """Never is a row put together from two."""
    buffer = io.StringIO()
    header = [f"c{number}" for number in range(len(table[0]))]
    csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([header, *table])
    text = buffer.getvalue()
    text = text[: data.draw(st.integers(0, len(text)))]
    try:
        rows = CsvText(Path("a.csv"), io.StringIO(text, newline=""))
        read = [list(row.cells.values()) for row in rows.rows()]
    except InputError:
        return
    assert read[:-1] == table[: len(read)][:-1]
