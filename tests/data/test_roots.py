"""Tables that may name files below some folders only: every way out is closed, and tells nothing of what is there."""

import os

import pytest

from danceopd_core.data.buckets import load_bucket
from danceopd_core.data.csv_rows import read_csv
from danceopd_core.data.roots import file_of
from danceopd_core.errors import InputError
from danceopd_core.recipe.schema import Bucket


@pytest.fixture
def places(tmp_path):
    """(roots, table): two folders that may be read, one of them through a link, and secrets beside them."""
    for name in ("real_input/sets", "output", "outside", "input_more"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "input").symlink_to(tmp_path / "real_input")
    for name in ("real_input/a.png", "real_input/sets/b.png", "output/c.png", "outside/secret.png", "input_more/d.png"):
        (tmp_path / name).write_bytes(b"picture")
    sets = tmp_path / "real_input" / "sets"
    (sets / "out").symlink_to(tmp_path / "outside")
    (sets / "secret.png").symlink_to(tmp_path / "outside" / "secret.png")
    (sets / "broken.png").symlink_to(tmp_path / "outside" / "absent.png")
    (sets / "loop").symlink_to(sets / "loop")
    (sets / "own.png").symlink_to(tmp_path / "output" / "c.png")
    return (tmp_path / "input", tmp_path / "output"), tmp_path / "input" / "sets" / "table.csv"


def named(table, text, roots):
    table.write_text(f'prompt,source_image\na,"{text}"\n', encoding="utf-8")
    return read_csv(table, roots=roots)[0].source


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("b.png", "real_input/sets/b.png"),
        ("../a.png", "real_input/a.png"),
        ("./x/../b.png", "real_input/sets/b.png"),
        ("{0}/input/a.png", "real_input/a.png"),
        ("{0}/real_input/a.png", "real_input/a.png"),
        ("{0}/output/c.png", "output/c.png"),
        ("own.png", "output/c.png"),
        ("loop", "real_input/sets/loop"),
        ("absent.png", "real_input/sets/absent.png"),
        ("../../output/c.png", "output/c.png"),
    ],
)
def test_files_below_the_folders_are_found(places, tmp_path, text, file):
    roots, table = places
    assert named(table, text.format(tmp_path), roots) == tmp_path / file


OUTSIDE = [
    "{0}/outside/secret.png", "../../outside/secret.png", "out/secret.png", "secret.png", "broken.png", "out",
    "{0}/input_more/d.png", "../../input_more/d.png", "~/x.png", "~root/x.png", "~", "/etc/passwd",
    "/proc/self/environ", "/dev/stdin", "..", "../..", "../../outside/../outside/secret.png", "{0}/output",
    "//etc/passwd",    "{0}/output/../outside/secret.png",
]  # fmt: skip


@pytest.mark.parametrize("text", OUTSIDE)
def test_files_outside_are_refused_in_one_sentence(places, tmp_path, text):
    """The same whether there is such a file or not."""
    roots, table = places
    text = text.format(tmp_path)
    with pytest.raises(InputError) as caught:
        named(table, text, roots)
    told = str(caught.value).replace(f"'{text}'", "'IT'")
    where = f"{table.resolve()}, row 2: 'IT' lies outside of the folders"
    assert told == f"{where} that files may be in (input, output): copy it there"


def test_what_is_outside_is_not_looked_at(places, tmp_path, monkeypatch):
    """Not even whether it is a link."""
    roots, _ = places
    seen = []
    real = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path, **more: (seen.append(os.fspath(path)), real(path, **more))[1])
    for text in (f"{tmp_path}/outside/secret.png", "../../outside/secret.png", "/etc/passwd", "~/x"):
        with pytest.raises(InputError):
            file_of(text, tmp_path / "input" / "sets", roots)
    assert not [path for path in seen if path.startswith((f"{tmp_path}/outside", "/etc"))]


def test_a_table_outside_is_refused_too(places, tmp_path):
    roots, _ = places
    (tmp_path / "outside" / "t.csv").write_text("prompt\na\n")
    (tmp_path / "input" / "t.csv").symlink_to(tmp_path / "outside" / "t.csv")
    for table in (tmp_path / "outside" / "t.csv", tmp_path / "input" / "t.csv", tmp_path / "outside" / "absent.csv"):
        with pytest.raises(InputError, match="lies outside"):
            load_bucket(Bucket(csv=str(table)), 0, roots=roots)
        with pytest.raises(InputError, match="lies outside"):
            load_bucket(Bucket(encoded=str(table)), 0, roots=roots)


def test_the_command_line_reads_where_its_user_may(places, tmp_path):
    _, table = places
    assert named(table, f"{tmp_path}/outside/secret.png", None) == tmp_path / "outside" / "secret.png"
    assert named(table, "~/x.png", None) == type(table)(os.path.expanduser("~/x.png"))


def test_the_embedded_world_lies_in_no_folder(places):
    roots, _ = places
    assert len(load_bucket(Bucket(shapes="edit", count=6), 0, roots=roots)) == 6
