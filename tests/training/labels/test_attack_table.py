from datetime import timezone
from pathlib import Path

import pytest

from training.labels.attack_table import read_attack_table
from training.labels.rules import ALWAYS, Rule
from transforms.records import InputError

CSV = """\
# what we did on Wednesday
name, category, start, end, addresses, networks, victims, ports, source_ports, protocol, direction, needs, comment

DoS Hulk,dos,2026-01-05T08:00Z,1767600060,10.0.0.1;10.0.0.2,172.16.0.0/12,fd00::/8,80 8000-8100,53,tcp udp,from,answer,x
PortScan,,,,10.0.0.3,,,,,,,,
"""

YAML = """\
attacks:
  - name: DoS Hulk
    category: dos
    start: 2026-01-05T08:00:00Z
    end: 1767600060
    addresses: [10.0.0.1, 10.0.0.2]
    networks: 172.16.0.0/12
    victims: ["fd00::/8"]
    ports: [80, 8000-8100]
    source_ports: 53
    protocol: [tcp, 17]
    direction: "->"
    needs: answer
  - {name: PortScan, addresses: 10.0.0.3}
"""

JSON = """\
[{"name": "DoS Hulk", "category": "dos", "start": "2026-01-05T08:00:00Z", "end": 1767600060,
  "addresses": ["10.0.0.1", "10.0.0.2"], "networks": "172.16.0.0/12", "victims": "fd00::/8", "ports": [80, "8000-8100"],
  "source_ports": 53, "protocol": "6, UDP", "direction": "from", "needs": "answer"},
 {"name": "PortScan", "addresses": "10.0.0.3", "category": null}]
"""


def read(text: str, name: str = "attacks.csv") -> list[Rule]:
    return read_attack_table(Path("there") / name, text, timezone.utc)


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [("attacks.csv", CSV, (4, 5)), ("attacks.yaml", YAML, (2, 14)), ("attacks.json", JSON, (1, 2))],
)
def test_three_ways_to_write_the_same(name, text, places):
    dos, scan = read(text, name)
    assert dos.attack == ("DoS Hulk", "dos", f"{name}:{places[0]}", "answer", False, 0)
    assert dos[1:] == (
        1_767_600_000_000_000_000,
        1_767_600_060_000_000_000,
        ("10.0.0.1", "10.0.0.2", "172.16.0.0/12"),
        ("fd00::/8",),
        ((80, 80), (8000, 8100)),
        ((53, 53),),
        (6, 17),
        "from",
    )
    assert scan == Rule(scan.attack, attackers=("10.0.0.3",))
    assert scan.attack == ("PortScan", "", f"{name}:{places[1]}", "nothing", False, 0)
    assert (scan.start_ns, scan.end_ns) == ALWAYS


@pytest.mark.parametrize(
    ("name", "category", "needs"),
    [
        ("DoS Hulk", "dos", "payload"),
        ("HTTP flood", "", "payload"),
        ("SYN-flood", "", "nothing"),
        ("synflood", "", "nothing"),
        ("x", "Port Scan", "nothing"),
        ("Reconnaissance", "", "nothing"),
        ("SSH-Patator", "brute force", "payload"),
    ],
)
def test_scans_and_bare_floods_need_no_payload(name, category, needs):
    (rule,) = read(f"name,category,addresses\n{name},{category},10.0.0.1\n")
    assert rule.attack.needs == needs


HEADER = "name,start,end,addresses,ports,protocol,direction,needs\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there/attacks.csv: has no attacks"),
        (
            "name,adresses\nx,10.0.0.1\n",
            "there/attacks.csv:1: adresses is no column of attacks; those are name, category",
        ),
        ("start\n1\n", "there/attacks.csv:1: the header has no column name; it has start"),
        ("name,name\n", "there/attacks.csv:1: the header names a column twice"),
        (HEADER + "x,1\n", "there/attacks.csv:2: 2 values for 8 columns; quote values that have commas"),
        (HEADER + ",1,,,,,,\n", "there/attacks.csv:2: name: is empty"),
        (HEADER + "x,,,,,,from,\n", "there/attacks.csv:2: name: x would be every flow; say when, where or what"),
        (
            HEADER + "\nx,noon,,,,,,\n",
            "there/attacks.csv:3: start: noon is no time such as 2026-01-31T12:00:00Z or 1769860800",
        ),
        (HEADER + "x,2026-02-30,,,,,,\n", "there/attacks.csv:2: start: 2026-02-30 day"),
        (HEADER + "x,2,1,,,,,\n", "there/attacks.csv:2: end: 1 is before start 2"),
        (
            HEADER + "x,,,10.0.0,,,,\n",
            "there/attacks.csv:2: addresses: 10.0.0 is no address or network such as 10.0.0.0/8",
        ),
        (HEADER + "x,,,10.0.0.1/8,,,,\n", "there/attacks.csv:2: addresses: 10.0.0.1/8 has bits behind its length"),
        (HEADER + "x,,,,90-80,,,\n", "there/attacks.csv:2: ports: 90-80 is no port or range such as 80 or 8000-8100"),
        (HEADER + "x,,,,65536,,,\n", "there/attacks.csv:2: ports: 65536 is no port or range"),
        (HEADER + "x,,,,,tcpp,,\n", "there/attacks.csv:2: protocol: tcpp is no name or number of a protocol"),
        (HEADER + "x,,,,,256,,\n", "there/attacks.csv:2: protocol: 256 is no name or number of a protocol"),
        (HEADER + "x,1,,,,,up,\n", "there/attacks.csv:2: direction: up is none of from, to, any"),
        (HEADER + "x,1,,,,,,love\n", "there/attacks.csv:2: needs: love is none of payload, answer, nothing"),
        (HEADER + '"x', "there/attacks.csv:2: is no CSV: unexpected end of data"),
    ],
)
def test_mistakes_are_one_line_with_their_place(text, message):
    with pytest.raises(InputError) as caught:
        read(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "there/a.json: is no JSON: "),
        ("a.json", '{"name": "x"}', "there/a.json: is no list of attacks"),
        ("a.json", "[1]", "there/a.json: entry 1: is no attack with name, start, end"),
        ("a.json", '[{"name": "x", "ports": [[1]]}]', "there/a.json: entry 1: ports: is not a plain list"),
        ("a.json", '[{"name": ["x"]}]', "there/a.json: entry 1: name: is a list; give one value"),
        ("a.json", "[" * 100_000, "there/a.json: is no JSON: "),
        ("a.yaml", "a: [", "there/a.yaml:1: is no YAML: "),
        ("a.yaml", "- name: x\n  start: noon\n", "there/a.yaml:1: start: noon is no time"),
        ("a.yaml", "- x\n", "there/a.yaml: is no attack with name, start, end"),
        ("a.yaml", "- {name: x, ports: 1}\n- nmae: y\n", "there/a.yaml:2: nmae is no column of attacks"),
        ("a.yaml", "- !!python/object/apply:os.system [true]\n", "there/a.yaml"),
        ("a.yaml", "\0", "there/a.yaml: is no YAML: "),
        ("a.yaml", "a: &a [x]\nb: [*a, *a]\n", "there/a.yaml: is no list of attacks"),
    ],
)
def test_mistakes_of_json_and_yaml(name, text, message):
    with pytest.raises(InputError) as caught:
        read(text, name)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
