"""Files of any octets as UTF-8, and what pyarrow makes of them then."""

import gzip

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv

from transforms.csv_text import Utf8File, column_names
from transforms.records import InputError

PIECES = st.sampled_from([b"a", b",", b"\n", b"\x96", b"\xe2\x80", b"\xe2\x80\x93", b"\xff", b"\xed\xa0\x80", b"\x81"])


def by_hand(octets: bytes) -> str:
    """What is no UTF-8 one octet at a time."""
    text = octets.decode(errors="surrogateescape")
    return "".join(
        bytes([ord(one) - 0xDC00]).decode("cp1252", errors="replace") if 0xDC80 <= ord(one) <= 0xDCFF else one
        for one in text
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=4), max_size=20).map(b"".join), st.integers(1, 7))
def test_pieces_of_any_size_are_the_text_of_the_whole(tmp_path_factory, octets, most):
    """Letters across a border included; no piece is longer than asked for, and none is empty before the end."""
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(octets)
    file = Utf8File(str(path))
    pieces = list(iter(lambda: file.read(most), b""))
    assert b"".join(pieces).decode() == by_hand(octets)
    assert max(map(len, pieces), default=0) <= most


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), PIECES.filter(lambda one: one not in b",\n")), min_size=1, max_size=12))
def test_damaged_rows_are_handed_over_and_the_rest_is_read(tmp_path_factory, rows):
    """A row too long that is no UTF-8 ended reading, with a traceback on standard error."""
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    path.write_bytes(b"a,b\n" + b"".join(b"1,%b%b\n" % (word, b",2" * damaged) for damaged, word in rows))
    refused = []

    def skip(row: csv.InvalidRow) -> str:
        refused.append(row.text)
        return "skip"

    convert = csv.ConvertOptions(column_types={"b": pa.string()})
    table = csv.open_csv(Utf8File(str(path)), None, csv.ParseOptions(invalid_row_handler=skip), convert).read_all()
    assert table["b"].to_pylist() == [by_hand(word) for damaged, word in rows if not damaged]
    assert refused == [f"1,{by_hand(word)},2" for damaged, word in rows if damaged]


def test_a_compressed_file_is_read_by_its_name(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"Web Attack \x96 XSS"))
    assert Utf8File(str(path)).read(100).decode() == "Web Attack – XSS"


@pytest.mark.parametrize(
    ("octets", "names"),
    [
        (b'a , "b, c"\r\n1,2', ["a", '"b', 'c"']),
        (b'"b, c",d\n', ["b, c", "d"]),
        (b"\xef\xbb\xbfa,b\r1,2\r", ["a", "b"]),
        (b"na\xefve,\xc3\xa9", ["naïve", "é"]),
    ],
    ids=["spaces", "quotes", "mark-and-returns", "windows-1252"],
)
def test_names_of_columns(tmp_path, octets, names):
    (tmp_path / "a.csv").write_bytes(octets)
    assert column_names(str(tmp_path / "a.csv")) == names


@pytest.mark.parametrize(
    ("octets", "message"),
    [
        ("a,label\n1,x\n".encode("utf-16"), "as UTF-16 has; write it as UTF-8"),
        ("a,label\n1,x\n".encode("utf-16-be"), "as UTF-16 has; write it as UTF-8"),
        (b"a" * 200_000 + b",label\n1,x\n", "this one cannot be read: field larger than field limit"),
        (b"\n1,x\n", "is empty, or its first line is"),
        (b"," * (1 << 20) + b"\n", "no line end in its first 1,048,576 octets"),
    ],
    ids=["utf-16", "utf-16-without-mark", "one-long-name", "empty-line", "millions"],
)
def test_a_file_without_names_is_one_line(tmp_path, octets, message):
    (tmp_path / "a.csv").write_bytes(octets)
    with pytest.raises(InputError) as error:
        column_names(str(tmp_path / "a.csv"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
