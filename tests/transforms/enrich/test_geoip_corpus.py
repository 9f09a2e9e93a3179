"""MaxMind's own test databases: what is right for every network of them, and broken ones."""

import ipaddress
import json

import pyarrow as pa
import pytest

from transforms.enrich import geoip
from transforms.enrich.address_numbers import network_numbers
from transforms.enrich.geoip import PLACE, SYSTEM, Database, Kind, Records
from transforms.records import InputError

pytestmark = pytest.mark.corpus

ANY = Kind(("",), (), lambda record: ())
"""What every database is, so that those of other types can be asked, too."""


def expected_records(corpus):
    """For each database, the addresses to ask, and the record that is right: the last network around it tells."""
    for source in sorted((corpus / "expected" / "maxmind-db-source").glob("*.json")):
        path = corpus / "geoip" / "maxmind-db" / "test-data" / f"{source.stem}.mmdb"
        if not path.exists():
            continue
        entries = json.loads(source.read_text(encoding="utf-8"))
        pairs = [
            (ipaddress.ip_network(text, strict=False), record) for entry in entries for text, record in entry.items()
        ]
        asked = {}
        for network, record in pairs:  # a later one overwrites what it covers
            for covered in [address for address in asked if address.version == network.version and address in network]:
                asked[covered] = record
            asked[network[0]] = asked[network[-1]] = record
        yield path, asked


def opened(path):
    """The database, or the line that refuses it."""
    try:
        return Database(path)
    except InputError as error:
        return str(error)


def numbers(addresses):
    hi, lo, _ = network_numbers(pa.array([str(address) for address in addresses], pa.string()))
    return hi, lo


def test_every_network_of_every_database_has_its_record(corpus, monkeypatch):
    """By our walk of the tree: equal places are equal records, and the record is the right one."""
    monkeypatch.setattr(geoip, "KINDS", (ANY,))
    seen = 0
    for path, asked in expected_records(corpus):
        database = Database(path)
        first_at = {}
        for address, place in zip(asked, database.find(*numbers(asked)).tolist(), strict=True):
            assert place > 0, (path.stem, address)
            record = first_at.setdefault(place, database.record(str(address)))
            assert record == asked[address], (path.stem, address)
            seen += 1
    assert seen > 5_000


def values(record, *path):
    for name in path:
        record = record.get(name, {}) if isinstance(record, dict) else {}
    return None if record == {} else record


def test_columns_say_what_the_records_say(corpus):
    """For both kinds, from City, Country, Enterprise, ASN and ISP databases."""
    kinds = set()
    for path, asked in expected_records(corpus):
        database = opened(path)
        if isinstance(database, str):
            assert "has neither places nor autonomous systems" in database
            continue
        for kind in database.kinds:
            columns, rows, unreadable = Records(kind, [database]).find(*numbers(asked))
            assert not unreadable.any()
            told = {
                column[0]: values_.take(pa.array(rows)).to_pylist()
                for column, values_ in zip(kind.columns, columns, strict=True)
            }
            for at, record in enumerate(asked.values()):
                if kind is SYSTEM:
                    within = record if "autonomous_system_number" in record else record.get("traits", {})
                    assert told["asn"][at] == within.get("autonomous_system_number")
                    assert told["as_org"][at] == within.get("autonomous_system_organization")
                    continue
                assert told["country_iso"][at] == values(record, "country", "iso_code")
                assert told["country"][at] == values(record, "country", "names", "en")
                if kind is PLACE:
                    assert told["city"][at] == values(record, "city", "names", "en")
                    assert told["latitude"][at] == values(record, "location", "latitude")
                    assert told["longitude"][at] == values(record, "location", "longitude")
            kinds.add((path.stem, kind.types[0]))
    assert {"City", "Country", "ASN"} <= {kind for _, kind in kinds}
    assert ("GeoIP2-Enterprise-Test", "ASN") in kinds


def test_broken_databases_are_refused_in_one_line(corpus):
    """Each of the set says that it is broken, or what its type is; none ends the process or hangs."""
    told = {}
    for path in sorted((corpus / "geoip" / "maxmind-db").rglob("*.mmdb")):
        database = opened(path)
        if isinstance(database, str):
            told[path.stem] = database
            assert database.startswith(f"--geoip {path}: ")
            assert "\n" not in database
    harmless = {
        "libmaxminddb-empty-array-last-in-metadata",
        "libmaxminddb-empty-map-last-in-metadata",
        "libmaxminddb-uint64-max-epoch",
    }
    bad = [
        path.stem
        for path in (corpus / "geoip" / "maxmind-db" / "bad-data").rglob("*.mmdb")
        if path.stem not in harmless
    ]
    bad += [
        "GeoIP2-City-Test-Broken-Double-Format", "GeoIP2-City-Test-Invalid-Node-Count",
        "MaxMind-DB-test-broken-pointers-24", "MaxMind-DB-test-broken-search-tree-24",
    ]  # fmt: skip
    assert [name for name in bad if "broken database" not in told.get(name, "")] == []
    assert all("has neither places nor" in told[name] for name in harmless)
