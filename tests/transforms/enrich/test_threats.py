"""Threat lists in all their formats, and which of them names a flow."""

import numpy as np
import pyarrow as pa
import pytest

from transforms.enrich import threats
from transforms.enrich.address_numbers import network_numbers
from transforms.enrich.threats import Threats, read_lists
from transforms.records import InputError

PLAIN = """\
# a list as many feeds have it
198.51.100.7
203.0.113.0/24 ; SBL1
2001:db8:bad::/48\t# v6
Evil.Example.
*.worse.example
"""
CSV = """\
indicator,confidence,list,seen
198.51.100.7,90,feed one,2026
203.0.113.5,,feed two,2026
evil.example,20.5,,2026
"""
JSON_LINES = (
    '{"indicator": "198.51.100.7", "confidence": 35}\n{"indicator": "192.0.2.0/25", "list": "own", "more": [1]}\n'
)


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def addresses(*texts):
    hi, lo, _ = network_numbers(pa.array(texts))
    return hi, lo


def told(known: Threats, rows: np.ndarray) -> list[tuple]:
    """List, indicator and confidence of rows."""
    columns = known.columns([("src", rows)])
    return list(zip(*(column.to_pylist() for column in columns[:3]), strict=True))


def test_plain_lists(tmp_path):
    """Comments behind # and ;, any letter case, domains with all that is in them."""
    known = Threats(read_lists(write(tmp_path, "drop.txt", PLAIN)))
    rows = known.find(*addresses("198.51.100.7", "203.0.113.77", "2001:db8:bad::1", "198.51.100.8"))
    assert told(known, rows) == [
        ("drop", "198.51.100.7", None),
        ("drop", "203.0.113.0/24", None),
        ("drop", "2001:db8:bad::/48", None),
        (None, None, None),
    ]
    names = pa.array(["evil.example", "a.b.EVIL.example.", "notevil.example", "x.worse.example", None, "example"])
    found = [row[1] for row in told(known, known.find_names(names))]
    assert found == ["evil.example", "evil.example", None, "worse.example", None, None]


def test_internationalized_domains(tmp_path):
    """However a list writes them, they are found as DNS has them."""
    known = Threats(read_lists(write(tmp_path, "a.txt", "*.BÜCHER.example.\nxn--mnchen-3ya.example\nпример.рф\n")))
    names = pa.array(
        ["www.xn--bcher-kva.example", "XN--MNCHEN-3YA.example", "a.xn--e1afmkfd.xn--p1ai", "bucher.example"]
    )
    assert known.find_names(names).tolist() == [0, 1, 2, -1]


def test_tables(tmp_path):
    """Columns that are not ours are passed over; a list without a name is called by its file."""
    known = Threats(read_lists(write(tmp_path, "a.csv", CSV)))
    assert told(known, known.find(*addresses("198.51.100.7", "203.0.113.5"))) == [
        ("feed one", "198.51.100.7", 90.0),
        ("feed two", "203.0.113.5", None),
    ]
    assert told(known, known.find_names(pa.array(["evil.example"]))) == [("a", "evil.example", 20.5)]
    known = Threats(read_lists(write(tmp_path, "b.jsonl", JSON_LINES)))
    assert told(known, known.find(*addresses("198.51.100.7", "192.0.2.1"))) == [
        ("b", "198.51.100.7", 35.0),
        ("own", "192.0.2.0/25", None),
    ]


def test_a_folder_of_lists(tmp_path):
    """All of its files, hidden ones aside; of equal indicators the surest counts, then that of the first file."""
    for name, text in (("b.jsonl", JSON_LINES), ("a.csv", CSV), ("c.txt", PLAIN), (".hidden", "not a list")):
        write(tmp_path, name, text)
    known = Threats(read_lists(tmp_path))
    rows = known.find(*addresses("198.51.100.7", "203.0.113.5", "203.0.113.6", "192.0.2.1"))
    assert [row[0] for row in told(known, rows)] == ["feed one", "feed two", "c", "own"]
    assert told(known, known.find_names(pa.array(["evil.example"])))[0][0] == "a"


def test_the_surest_side_of_a_flow_counts_then_the_first(tmp_path):
    text = "indicator,confidence\n10.0.0.1,10\n10.0.0.2,90\n10.0.0.3,\n"
    known = Threats(read_lists(write(tmp_path, "a.csv", text)))
    src = known.find(*addresses("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.9", "10.0.0.1", "10.0.0.9"))
    dst = known.find(*addresses("10.0.0.2", "10.0.0.1", "10.0.0.1", "10.0.0.3", "10.0.0.1", "10.0.0.9"))
    columns = known.columns([("src", src), ("dst", dst)])
    assert columns[3].to_pylist() == ["dst", "src", "dst", "dst", "src", None]
    assert columns[2].to_pylist() == [90.0, 90.0, 10.0, None, 10.0, None]


def test_names_are_kept_within_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(threats, "KEPT_NAMES", 10)
    known = Threats(read_lists(write(tmp_path, "a.txt", "evil.example\n")))
    for first in range(0, 60, 6):
        names = pa.array([f"host{number}.evil.example" for number in range(first, first + 6)] + ["good.example"])
        assert known.find_names(names).tolist() == [0] * 6 + [-1]
        assert len(known._row_of) <= 10 + 7 + 1


def test_lists_without_a_kind(tmp_path):
    """No domains, no networks, nothing at all."""
    known = Threats(read_lists(write(tmp_path, "a.txt", "# none yet\n")))
    assert known.find(*addresses("10.0.0.1")).tolist() == [-1]
    assert known.find_names(pa.array(["a.example"])).tolist() == [-1]
    assert [column.null_count for column in known.columns([("src", np.array([-1, -1], np.int32))])] == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "a.txt",
            "10.0.0.1\n\nhttp://evil.example/x\n",
            "line 3: 'http://evil.example/x' is no address, network or domain",
        ),
        ("a.txt", "1.2.3.400\n", "line 1: '1.2.3.400' is no address, network or domain"),
        ("a.txt", f"ü{'x' * 70}.example\n", "xx.example' is no address, network or domain"),
        ("a.txt", "localhost\n", "line 1: 'localhost' is no address"),
        (
            "a.txt",
            "10.0.0.1/8\n",
            "line 1: '10.0.0.1/8' has bits set behind its length; write the network's first address",
        ),
        ("a.csv", "indicator,confidence\n10.0.0.1,high\n", "line 2: confidence 'high' is no number"),
        ("a.csv", "indicator,confidence\n10.0.0.1,5\n10.0.0.2,101\n", "line 3: 101.0 is no confidence; give 0 to 100"),
        ("a.csv", "ip\n10.0.0.1\n", "has no column indicator or list or confidence"),
        ("a.csv", "indicator,list\n,mine\n", "line 2: has no indicator"),
        ("a.jsonl", '{"indicator": "10.0.0.1", "confidence": "x"}\n', "give one JSON object a line"),
    ],
)
def test_a_wrong_list_is_told_with_its_line(tmp_path, name, text, told):
    path = write(tmp_path, name, text)
    with pytest.raises(InputError) as error:
        read_lists(path)
    assert str(error.value).startswith(f"--threats {path}")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(InputError, match="is an empty folder; put lists into it"):
        read_lists(tmp_path)
