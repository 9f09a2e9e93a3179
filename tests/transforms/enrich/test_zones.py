"""Zones of one's own, and which way flows go between them."""

import pyarrow as pa
import pytest

from transforms.enrich.address_numbers import network_numbers
from transforms.enrich.zones import Zones
from transforms.records import InputError

CSV = """\
# our networks
network,name,role,site

10.0.0.0/8,corporate,,Rio
10.1.0.0/16,"servers, old",servers,Rio
2001:db8::/32,corporate v6
203.0.113.0/24,partner,external,
"""


def write(tmp_path, text, name="zones.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def numbers(*addresses):
    hi, lo, _ = network_numbers(pa.array(addresses))
    return hi, lo


def names(zones, *addresses):
    rows = zones.find(*numbers(*addresses))
    return zones.columns[0].take(pa.array(rows, mask=rows < 0)).to_pylist()


def test_the_narrowest_network_names_the_zone(tmp_path):
    zones = Zones(write(tmp_path, CSV.replace("corporate v6", "corporate v6,,")))
    asked = ("10.1.2.3", "10.2.0.1", "2001:db8::1", "203.0.113.9", "192.0.2.1")
    assert names(zones, *asked) == ["servers, old", "corporate", "corporate v6", "partner", None]
    rows = zones.find(*numbers("10.1.2.3", "10.2.0.1"))
    assert zones.columns[1].take(pa.array(rows)).to_pylist() == ["servers", None]
    assert zones.columns[2].take(pa.array(rows)).to_pylist() == ["Rio", "Rio"]


def test_locality_is_by_what_is_one_s_own(tmp_path):
    """A zone with the role `external` has a name and is none of one's own."""
    zones = Zones(write(tmp_path, CSV.replace("corporate v6", "corporate v6,,")))
    src = zones.find(*numbers("10.1.2.3", "10.1.2.3", "203.0.113.9", "192.0.2.1", "192.0.2.1"))
    dst = zones.find(*numbers("10.9.9.9", "203.0.113.9", "2001:db8::1", "10.0.0.1", "203.0.113.9"))
    assert zones.localities(src, dst).to_pylist() == ["internal", "outbound", "inbound", "inbound", "external"]


def test_json_lines_say_the_same(tmp_path):
    corporate = '{"network": "10.0.0.0/8", "name": "corporate", "vlan": 7}'
    dmz = '{"network": "10.1.0.0/16", "name": "dmz", "role": "servers"}'
    lines = f"{corporate}\n\n{dmz}\n"
    zones = Zones(write(tmp_path, lines, "zones.jsonl"))
    assert names(zones, "10.1.2.3", "10.2.0.1") == ["dmz", "corporate"]
    assert zones.columns[2].null_count == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "network,name\n10.0.0.0/8,a\n# twice\n10.0.0.0/8,b\n",
            "line 4: 10.0.0.0/8 is in line 2, too; keep one of them",
        ),
        ("network,name\n10.0.0.1/8,a\n", "line 2: 10.0.0.1/8 has bits set behind its length; write the first"),
        ("network,name\nten,a\n", "line 2: ten is no network; write one like 10.20.0.0/16"),
        ("network,name\n10.0.0.0/8,\n", "line 2: has no name"),
        ("network,name\n,a\n", "line 2: has no network"),
        ("network,name\n", "has no zones; give rows under a header network,name,role,site"),
        ("cidr,zone\n10.0.0.0/8,a\n", "has no column network or name or role or site; begin with a header such as"),
        ("network,name\n10.0.0.0/8,a,b\n", "quote values with commas"),
        ("", "has no column network"),
    ],
    ids=["twice", "host-bits", "no-network", "no-name", "empty-network", "no-rows", "other-header", "comma", "empty"],
)
def test_a_wrong_file_is_told_with_its_line(tmp_path, text, told):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        Zones(path)
    assert str(error.value).startswith(f"--zones {path}")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_json_that_is_none_and_text_that_is_no_utf8(tmp_path):
    with pytest.raises(InputError, match="give one JSON object a line"):
        Zones(write(tmp_path, '{"network": 7}\n', "a.jsonl"))
    with pytest.raises(InputError, match="give one JSON object a line"):
        Zones(write(tmp_path, "{broken\n", "b.jsonl"))
    path = tmp_path / "latin.csv"
    path.write_bytes("network,name\n10.0.0.0/8,São\n".encode("latin-1"))
    with pytest.raises(InputError, match="octet 25 is no UTF-8"):
        Zones(path)
    with pytest.raises(InputError, match="No such file or directory; name a file that can be read"):
        Zones(tmp_path / "absent.csv")
