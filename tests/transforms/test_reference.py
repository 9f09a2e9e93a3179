"""The reference page says what the code says."""

from transforms import fields, reference
from transforms.features import sets
from transforms.features.families import FAMILIES


def test_the_reference_is_current():
    """After a change of a column or a set: `python -m transforms.reference`."""
    assert reference.PATH.read_text(encoding="utf-8") == reference.page()


def test_every_column_has_a_row_with_its_definition():
    page = reference.page()
    for field in (*fields.COMMON, *(field for family in FAMILIES for field in family.FIELDS)):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{field.name}` |")]
        assert field.doc.replace("|", "\\|") in row
        assert f"`{field.type}`" in row


def test_every_set_has_a_row_for_each_of_its_columns():
    for name in ("cic@1", "flowtbag@1", "nfstream@1"):
        section = reference.page().partition(f"### `{name}`")[2].partition("### ")[0]
        for number, column in enumerate(sets.get(name).columns, 1):
            assert (
                f"\n| {number} | {column.name} | {', '.join(f'`{source}`' for source in column.canonical)} |" in section
            )


def test_a_table_survives_a_bar_in_a_definition():
    """A cell's | would begin another column."""
    assert reference.table(("a",), [("x|y",)]).splitlines()[2] == "| x\\|y |"
