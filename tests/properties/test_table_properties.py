"""Tables and rows of metadata: any bytes are prompts or an InputError, and what was written is read."""

import csv
import io
import json

from hypothesis import assume, given
from hypothesis import strategies as st

from danceopd_core.data.csv_rows import read_csv
from danceopd_core.data.metadata_rows import metadata_rows
from danceopd_core.errors import encodable

from .texts import TREES, taken

CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=30)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_a_table_or_a_sentence(tmp_path, data, with_header):
    (tmp_path / "table.csv").write_bytes(b"prompt,task,caption_dict\n" * with_header + data)
    items = taken(lambda: read_csv(tmp_path / "table.csv"))
    assert items is None or all(item.prompt and encodable(item.prompt) for item in items)


@given(st.lists(CELLS, min_size=1, max_size=5))
def test_prompts_that_were_written_are_read(tmp_path, prompts):
    assume(all(prompt.split() for prompt in prompts))
    text = io.StringIO()
    csv.writer(text).writerows([["prompt", "task"], *([prompt, "t"] for prompt in prompts)])
    (tmp_path / "table.csv").write_bytes(text.getvalue().encode())
    assert [item.prompt for item in read_csv(tmp_path / "table.csv")] == [" ".join(p.split()) for p in prompts]


@given(TREES)
def test_any_mapping_of_captions_is_a_prompt_or_a_sentence(tmp_path, tree):
    text = io.StringIO()
    csv.writer(text).writerows([["caption_dict"], [json.dumps(tree)]])
    (tmp_path / "table.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
    items = taken(lambda: read_csv(tmp_path / "table.csv"))
    assert items is None or all(encodable(item.prompt) for item in items)


@given(
    st.sampled_from([".csv", ".json", ".jsonl"]), st.binary(max_size=200) | TREES.map(lambda t: json.dumps(t).encode())
)
def test_any_bytes_are_rows_or_a_sentence(tmp_path, suffix, data):
    (tmp_path / f"rows{suffix}").write_bytes(data)
    for row in taken(lambda: list(metadata_rows(str(tmp_path / f"rows{suffix}")))) or ():
        assert row.fault or isinstance(row.values, dict)
