import pytest

from sinks import places


def test_what_a_library_put_beside_a_hidden_file_goes_with_it(tmp_path):
    """DuckDB keeps a log and spilled blocks under longer names; those of another bundle stay."""
    place = tmp_path / "x.duckdb"
    hidden, other = places.partial(place, "test"), places.partial(place, "test")
    (tmp_path / f"{hidden.name}.tmp").mkdir()
    for path in (place, hidden, tmp_path / f"{hidden.name}.wal", tmp_path / f"{hidden.name}.tmp" / "block", other):
        path.write_text("x")
    places.remove(hidden)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([place.name, other.name])


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("No space left on device", "No space left on device; free room or choose another --output"),
        (
            'Failed to commit: Could not write file "/x.wal": No space left on device',
            "No space left on device; free room or choose another --output",
        ),
        ("Permission denied", "Permission denied; make it writable or choose another --output"),
        ("IO Error: odd.\nand more", "IO Error: odd; choose another --output"),
    ],
)
def test_an_error_is_one_line_with_what_to_do(reason, said, tmp_path):
    assert str(places.unwritable("csv:x", tmp_path, reason)) == f"csv:x: cannot write {tmp_path}: {said}"
