"""Places and systems from MaxMind DB files that the tests write themselves."""

import numpy as np
import pyarrow as pa
import pytest
from geoip_testing import Unsigned128, place, system, write_database

from transforms.enrich import geoip
from transforms.enrich.address_numbers import network_numbers
from transforms.enrich.geoip import COUNTRY, PLACE, SYSTEM, Database, Records
from transforms.records import InputError

BROKEN_DOUBLE = b"\xe1\x48location\xe1\x48latitude\x64abcd"
"""A map with a double of four octets, which the format does not have."""

NETWORKS = [
    ("1.2.0.0/16", place("BR", "Rio", (-22.9, -43.2))),
    ("1.2.3.0/24", place("PT", "Lisboa", (38.7, -9.1))),
    ("2001:db8::/32", place("JP")),
]


def ask(records: Records, *addresses: str) -> list[tuple]:
    """What the columns say of each address."""
    columns, rows, _ = records.find(*network_numbers(pa.array(addresses))[:2])
    wanted = pa.array(rows, mask=rows < 0)
    return list(zip(*(column.take(wanted).to_pylist() for column in columns), strict=True))


@pytest.mark.parametrize("record_bits", [24, 28, 32])
@pytest.mark.parametrize("ip_version", [4, 6])
def test_records_of_every_size_are_found(tmp_path, record_bits, ip_version):
    """At the edges of networks, and of one in another."""
    networks = NETWORKS if ip_version == 6 else NETWORKS[:2]
    database = Database(write_database(tmp_path / "a.mmdb", "Our-City", networks, ip_version, record_bits))
    asked = ["1.1.255.255", "1.2.0.0", "1.2.2.255", "1.2.3.0", "1.2.3.255", "1.2.4.0", "1.2.255.255", "1.3.0.0"]
    found = ask(Records(PLACE, [database]), *asked, "2001:db8::", "2001:db9::", "::")
    cities = [row[4] for row in found]
    assert cities == [None, "Rio", "Rio", "Lisboa", "Lisboa", "Rio", "Rio", None, None, None, None]
    assert found[8][0] == ("JP" if ip_version == 6 else None)
    assert found[3] == ("PT", "Country PT", "PT-01", "Region of PT", "Lisboa", 38.7, -9.1)


def test_an_ipv6_packet_from_a_mapped_address_is_where_the_ipv4_address_is(tmp_path):
    database = Database(write_database(tmp_path / "a.mmdb", "Our-City", NETWORKS))
    assert ask(Records(PLACE, [database]), "::ffff:1.2.3.4")[0][4] == "Lisboa"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({}, (None,) * 7),
        ({"registered_country": {"iso_code": "BR"}}, (None,) * 7),
        (place(None, None, (48.0, 22.0)), (None,) * 5 + (48.0, 22.0)),
        ({"location": {"latitude": 48.0}}, (None,) * 7),
        ({"location": {"latitude": 91.0, "longitude": 0.0}}, (None,) * 7),
        ({"location": {"latitude": float("nan"), "longitude": 0.0}}, (None,) * 7),
        ({"country": "BR", "city": ["Rio"], "subdivisions": {}}, (None,) * 7),
        ({"city": {"names": {"fr": "Genève"}}}, (None,) * 7),
    ],
    ids=[
        "nothing",
        "registered-elsewhere",
        "no-country",
        "half-a-place",
        "off-the-globe",
        "nan",
        "other-types",
        "french",
    ],
)
def test_what_a_record_does_not_say_is_null(tmp_path, record, expected):
    """No place is made up: neither from where a network is registered nor from half of its coordinates."""
    database = Database(write_database(tmp_path / "a.mmdb", "Our-City", [("1.0.0.0/8", record)]))
    assert ask(Records(PLACE, [database]), "1.2.3.4") == [expected]


def test_the_first_database_that_knows_an_address_counts(tmp_path):
    one = Database(write_database(tmp_path / "one.mmdb", "Our-City", NETWORKS[1:]))
    two = Database(write_database(tmp_path / "two.mmdb", "Our-Country", [("1.2.0.0/16", place("AR"))]))
    found = ask(Records(PLACE, [one, two]), "1.2.3.4", "1.2.0.1", "9.9.9.9")
    assert [row[0] for row in found] == ["PT", "AR", None]
    assert found[1][4] is None


@pytest.mark.parametrize(
    ("type_", "kinds"),
    [
        ("GeoLite2-City", (PLACE,)),
        ("DBIP-Country-Lite", (COUNTRY,)),
        ("GeoLite2-ASN", (SYSTEM,)),
        ("GeoIP2-ISP", (SYSTEM,)),
        ("GeoIP2-Enterprise", (PLACE, SYSTEM)),
    ],
)
def test_the_type_tells_what_a_database_knows(tmp_path, type_, kinds):
    assert Database(write_database(tmp_path / "a.mmdb", type_, NETWORKS)).kinds == kinds


def test_systems_are_found_beside_and_within_traits(tmp_path):
    networks = [("1.0.0.0/8", system(15169, "Google")), ("2.0.0.0/8", {"traits": system(7018)})]
    database = Database(write_database(tmp_path / "a.mmdb", "Our-ASN", networks))
    assert ask(Records(SYSTEM, [database]), "1.1.1.1", "2.1.1.1") == [(15169, "Google"), (7018, None)]


def test_a_number_of_more_than_32_bits_is_no_system_s(tmp_path):
    """The format has numbers of 128 bits; columns have not."""
    networks = [("1.0.0.0/8", system(Unsigned128(1 << 100), "None")), ("2.0.0.0/8", system((1 << 32) - 1))]
    database = Database(write_database(tmp_path / "a.mmdb", "Our-ASN", networks))
    assert ask(Records(SYSTEM, [database]), "1.1.1.1", "2.1.1.1") == [(None, "None"), ((1 << 32) - 1, None)]


def test_records_are_decoded_once_and_again_when_there_are_too_many(tmp_path, monkeypatch):
    """However many records there are, so many are kept; what comes out does not depend on it."""
    networks = [(f"1.{number}.0.0/16", place("BR", f"City {number}")) for number in range(50)]
    database = Database(write_database(tmp_path / "a.mmdb", "Our-City", networks))
    decoded = []
    monkeypatch.setattr(
        database, "record", lambda address, read=database.record: decoded.append(address) or read(address)
    )
    records = Records(PLACE, [database], kept=20)
    for _ in range(2):
        for first in range(0, 50, 10):
            asked = [f"1.{number}.{host}.1" for number in range(first, first + 10) for host in (1, 2)]
            assert [row[4] for row in ask(records, *asked)] == [f"City {number // 2 + first}" for number in range(20)]
            ask(records, *asked)
    assert len(decoded) == 100


def test_a_record_that_cannot_be_read_is_marked(tmp_path, monkeypatch):
    """Where the check at the start did not come upon it."""
    networks = [("1.0.0.0/8", place("BR")), ("2.0.0.0/8", BROKEN_DOUBLE), ("3.0.0.0/8", place("PT"))]
    path = write_database(tmp_path / "a.mmdb", "Our-City", networks)
    with pytest.raises(InputError, match=r"--geoip .*a\.mmdb: broken database: .*; fetch it again"):
        Database(path)
    monkeypatch.setattr(geoip, "CHECKED_RECORDS", 1)
    records = Records(PLACE, [Database(path)])
    hi, lo, _ = network_numbers(pa.array(["3.3.3.3", "2.2.2.2", "1.1.1.1", "4.4.4.4"]))
    assert records.find(hi, lo).unreadable.tolist() == [False, True, False, False]
    assert [row[0] for row in ask(records, "3.3.3.3", "2.2.2.2", "1.1.1.1")] == ["PT", None, "BR"]


def test_half_a_file_and_other_files_are_refused_in_one_line(tmp_path):
    whole = write_database(tmp_path / "whole.mmdb", "Our-City", NETWORKS).read_bytes()
    wrong = {
        "half": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"this is no database\n" * 100,
        "tail": whole[len(whole) // 2 :],
    }
    for name, octets in wrong.items():
        path = tmp_path / f"{name}.mmdb"
        path.write_bytes(octets)
        with pytest.raises(InputError) as error:
            Database(path)
        assert str(error.value).startswith(f"--geoip {path}: broken database")
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="No such file or directory"):
        Database(tmp_path / "absent.mmdb")
    with pytest.raises(InputError, match="Is a directory"):
        Database(tmp_path)


@pytest.mark.parametrize("back_to", [0, 1, 20])
def test_a_tree_that_leads_back_is_refused(tmp_path, back_to):
    """To its root, to a node above, to the same node."""
    path = write_database(tmp_path / "a.mmdb", "Our-City", NETWORKS)
    whole = bytearray(path.read_bytes())
    whole[6 * 20 : 6 * 20 + 3] = back_to.to_bytes(3, "big")
    path.write_bytes(whole)
    with pytest.raises(InputError, match="broken database: its search tree is corrupt"):
        Database(path)


@pytest.mark.parametrize("seed", range(3))
def test_no_damage_does_more_than_refuse(tmp_path, seed):
    """A database with octets turned over is refused, or its records are null or marked: nothing else happens."""
    path = write_database(tmp_path / "a.mmdb", "Our-City", NETWORKS)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    random = np.random.default_rng(seed)
    asked = pa.array([f"1.2.{third}.{third}" for third in range(0, 256, 16)] + ["2001:db8::1", "2001:db7::1"])
    hi, lo, _ = network_numbers(asked)
    refused = 0
    for _ in range(150):
        damaged = whole.copy()
        damaged[random.integers(0, len(whole), 2)] = random.integers(0, 256, 2)
        path.write_bytes(damaged.tobytes())
        try:
            found = Records(PLACE, [Database(path)]).find(hi, lo)
        except InputError:
            refused += 1
        else:
            assert len(found.rows) == len(asked)
    assert refused > 10


def test_what_happens_to_the_file_does_not_reach_an_open_database(tmp_path):
    """Cut to nothing, a mapped file would end the process."""
    path = write_database(tmp_path / "a.mmdb", "Our-City", NETWORKS)
    records = Records(PLACE, [Database(path)])
    path.write_bytes(b"")
    assert ask(records, "1.2.3.4")[0][4] == "Lisboa"
