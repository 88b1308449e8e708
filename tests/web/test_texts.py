"""The generated texts: help-page tables and locales/en follow the schemas, which are read from source."""

import textwrap

import pytest

from .texts import node_schemas, texts

SOURCE = """
COUNT = 2
TOOLTIP = "Shared tooltip."


def _pair(number: int, fixed: bool = True) -> list[io.Input]:
    return [
        io.Float.Input(f"weight{number}", tooltip=f"Weight {number}."),
        io.Int.Input(f"seed{number}", tooltip=TOOLTIP, control_after_generate=fixed),
    ]


class Example(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Example",
            display_name="Example " "Node",
            description="Describes it.",
            inputs=[
                io.DynamicCombo.Input(
                    "kind",
                    tooltip="Selects.",
                    options=[
                        io.DynamicCombo.Option(str(n), [i for k in range(n) for i in _pair(k + 1, fixed=False)])
                        for n in range(1, COUNT + 1)
                    ],
                ),
                io.Combo.Input("over", display_name="base", options=list(choices()), tooltip="Base."),
                *_pair(9),
            ],
            outputs=[Socket.Output("id", display_name="first", tooltip="One."), io.Image.Output("b", tooltip="Two.")],
        )
"""


def example():
    (node,) = node_schemas.SchemaReader([SOURCE]).nodes()
    return node


def test_a_schema_is_read_with_its_helpers_loops_and_constants():
    node = example()
    assert (node.node_id, node.display_name, node.description) == ("Example", "Example Node", "Describes it.")
    assert [socket.key for socket in node.inputs] == [
        "kind", "kind_weight1", "kind_seed1", "kind_weight2", "kind_seed2", "over", "weight9", "seed9",
        "control_after_generate",
    ]  # fmt: skip
    assert {socket.key: socket.tooltip for socket in node.inputs}["kind_weight2"] == "Weight 2."
    assert {socket.key: socket.tooltip for socket in node.inputs}["seed9"] == "Shared tooltip."
    assert [(socket.id, socket.name, socket.number) for socket in node.inputs][4:6] == [
        ("seed2", "seed2", 2), ("over", "base", None),
    ]  # fmt: skip
    assert [(socket.key, socket.name, socket.tooltip) for socket in node.outputs] == [
        ("0", "first", "One."), ("1", "b", "Two."),
    ]  # fmt: skip


def test_a_text_that_cannot_be_read_is_reported_by_its_line():
    source = SOURCE.replace('"Describes it."', "describe()")
    with pytest.raises(SystemExit, match=r"line 19: describe\(\)"):
        node_schemas.SchemaReader([source]).nodes()


def test_a_page_keeps_its_prose_and_gets_title_description_and_tables():
    node = example()
    page = textwrap.dedent("""\
        # Old

        Old description.

        ![Example](image.png)

        Prose.

        | Input | |
        | --- | --- |
        | `gone` | Old. |

        | Output | |
        | --- | --- |

        **Example**: prose.
        """)
    written = texts.page(page, node, texts.english([node])["Example"], "en")
    first, second = (part for part in written.split("\n\n") if part.startswith("|"))
    assert written.startswith("# Example Node\n\nDescribes it.\n\n![Example](image.png)\n\nProse.\n\n|")
    assert written.endswith("|\n\n**Example**: prose.\n")
    assert first.splitlines() == [
        "| Input | Description |", "| --- | --- |", "| `kind` | Selects. |", "| `weight1` … | Weight 1. |",
        "| `seed1` … | Shared tooltip. |", "| `over` base | Base. |",
    ]  # fmt: skip
    assert second.splitlines()[2:] == ["| first | One. |", "| b | Two. |"]
    assert texts.page(written, node, texts.english([node])["Example"], "en") == written


def test_help_pages_and_english_locale_are_up_to_date():
    """Otherwise: python .ci/texts.py"""
    assert texts.outdated(texts.generated()) == []
