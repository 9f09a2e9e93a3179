from pathlib import Path

from transforms.drift import rows

PAGE = Path(__file__).parents[3] / "docs" / "drift.md"


def test_the_page_has_the_columns_of_the_rows():
    """In their order, with units and meanings."""
    told = PAGE.read_text(encoding="utf-8").partition("<!-- columns of drift -->\n")[2].partition("\n<!-- end -->")[0]
    columns = [f"| `{field.name}` | {field.unit} | {field.doc} |" for field in rows.FIELDS]
    assert told.splitlines()[2:] == columns


def test_every_part_of_a_feature_is_named():
    page = PAGE.read_text(encoding="utf-8")
    parts = rows.SCHEMA.field("features").type.value_type
    assert all(f"`{parts.field(at).name}`" in page for at in range(1, parts.num_fields))
