"""A block list that is replaced whole, in place or as a dry run."""

import ipaddress
import json
import os
import shutil
import subprocess

import alert_testing
import apache_beam as beam
import pytest
import sink_testing
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks import blocklist, outputs
from sinks.offenders import Offenders, Rules
from transforms.records import InputError

HOUR_NS = sink_testing.HOUR_NS
RULES = Rules(HOUR_NS, 1, 100, ())


def opened(url, flows):
    ((_, sink),) = outputs.open_outputs([url], alert_testing.context(flows))
    return sink


def keep(url, *batches):
    """Runs a job over the batches; returns its counters."""
    return sink_testing.run(batches, opened(url, batches[0]))


def attack(*sources, at=0, alerts=True, **columns):
    return alert_testing.scored([at] * len(sources), alerts, src_ip=list(sources), **columns)


def test_the_first_run_is_a_dry_run(tmp_path):
    """The list is beside the file; the file itself stays as it was."""
    place = tmp_path / "bad.txt"
    place.write_text("192.0.2.99\n")
    counters = keep(f"blocklist:{place}", attack("198.51.100.7", "2001:db8::1", "198.51.100.7", "10.0.0.1"))
    assert place.read_text() == "192.0.2.99\n"
    assert (tmp_path / "bad.txt.dry-run").read_text() == "198.51.100.7\n2001:db8::1\n"
    assert {name: counters[name] for name in ("alerts_counted", "alerts_spared", "lists_written")} == {
        "alerts_counted": 3, "alerts_spared": 1, "lists_written": 1,
    }  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == [".bad.txt.lock", "bad.txt", "bad.txt.dry-run", "bad.txt.json"]


def test_offenders_expire_by_the_time_of_the_traffic(tmp_path):
    """Flows that are no alerts tell the time, too; nothing tells it where nothing comes."""
    url = f"blocklist:{tmp_path}/bad.txt?apply=yes&ttl_s=60"
    keep(url, attack("198.51.100.1"), attack("198.51.100.2", at=30))
    assert (tmp_path / "bad.txt").read_text() == "198.51.100.1\n198.51.100.2\n"
    keep(url, attack("10.0.0.1", at=59, alerts=False))
    assert (tmp_path / "bad.txt").read_text() == "198.51.100.1\n198.51.100.2\n"
    keep(url, attack("10.0.0.1", at=60, alerts=False))
    assert (tmp_path / "bad.txt").read_text() == "198.51.100.2\n"
    keep(url, attack("10.0.0.1", at=90, alerts=False))
    assert (tmp_path / "bad.txt").read_text() == ""


def test_the_next_job_goes_on(tmp_path):
    """With what the last one knew, but for those that are spared now."""
    keep(f"blocklist:{tmp_path}/bad.txt?min_flows=2", attack("198.51.100.1", "198.51.100.2", "198.51.100.2"))
    assert (tmp_path / "bad.txt.dry-run").read_text() == "198.51.100.2\n"
    keep(f"blocklist:{tmp_path}/bad.txt?min_flows=2&never=198.51.100.2", attack("198.51.100.1", at=1))
    assert (tmp_path / "bad.txt.dry-run").read_text() == "198.51.100.1\n"


def test_networks_that_are_never_listed(tmp_path):
    """Private ones unless others are named; this host, this link and groups always."""
    (tmp_path / "never").write_text("# ours\n203.0.113.0/24  # the office\n\n2001:db8::/32, 198.51.100.7\n")
    everybody = attack(
        "10.1.2.3", "203.0.113.5", "2001:db8::5", "198.51.100.7", "198.51.100.8", "::ffff:203.0.113.9", "127.0.0.1",
        "224.0.0.1", "255.255.255.255", "fe80::1", "::", "nonsense",
    )  # fmt: skip
    keep(f"blocklist:{tmp_path}/a?never={tmp_path}/never", everybody)
    assert (tmp_path / "a.dry-run").read_text().split() == ["10.1.2.3", "198.51.100.8"]
    keep(f"blocklist:{tmp_path}/b", everybody)
    assert "10.1.2.3" not in (tmp_path / "b.dry-run").read_text()


@pytest.mark.parametrize("form", ["nftables", "ipset"])
def test_formats_of_firewalls(tmp_path, form):
    """The set is made anew at once; timeouts count from the newest flow."""
    keep(
        f"blocklist:{tmp_path}/bad?format={form}&name=bad&ttl_s=100",
        attack("198.51.100.1", "2001:db8::1"),
        attack("198.51.100.2", at=40),
    )
    lines = (tmp_path / "bad.dry-run").read_text().splitlines()
    expected = {
        "nftables": [
            "add table inet bad",
            "add set inet bad bad_v4 { type ipv4_addr; flags timeout; }",
            "flush set inet bad bad_v4",
            "add element inet bad bad_v4 { 198.51.100.1 timeout 60s, 198.51.100.2 timeout 100s }",
            "add set inet bad bad_v6 { type ipv6_addr; flags timeout; }",
            "flush set inet bad bad_v6",
            "add element inet bad bad_v6 { 2001:db8::1 timeout 60s }",
        ],
        "ipset": [
            "create bad_v4 hash:ip family inet timeout 3600",
            "create bad_v4_new hash:ip family inet timeout 3600",
            "flush bad_v4_new",
            "add bad_v4_new 198.51.100.1 timeout 60",
            "add bad_v4_new 198.51.100.2 timeout 100",
            "swap bad_v4_new bad_v4",
            "destroy bad_v4_new",
            "create bad_v6 hash:ip family inet6 timeout 3600",
            "create bad_v6_new hash:ip family inet6 timeout 3600",
            "flush bad_v6_new",
            "add bad_v6_new 2001:db8::1 timeout 60",
            "swap bad_v6_new bad_v6",
            "destroy bad_v6_new",
        ],
    }
    assert lines == expected[form]


def test_nftables_takes_it(tmp_path):
    """In a network namespace of its own, twice."""
    if shutil.which("nft") is None:
        lacking = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        lacking("needs nft (Debian and Ubuntu: apt install nftables)")
    keep(f"blocklist:{tmp_path}/bad?format=nftables&apply=yes", attack("198.51.100.1", "2001:db8::1"))
    script = f"nft -f {tmp_path}/bad && nft -f {tmp_path}/bad && nft list set inet flowbeam flowbeam_v6"
    alone = ["--net"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--net"]
    done = subprocess.run(["unshare", *alone, "sh", "-c", script], capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr:
        pytest.skip("needs the right to make network namespaces")
    assert done.returncode == 0, done.stderr
    assert "2001:db8::1" in done.stdout


def test_a_worker_that_was_taken_for_dead_changes_nothing(tmp_path):
    """What it writes late is older than what is there."""
    flows = attack("198.51.100.1")
    kept = opened(f"blocklist:{tmp_path}/bad?apply=yes", flows).kept
    older, newer = Offenders(kept.rules), Offenders(kept.rules)
    older.generation, newer.generation = 4, 5
    older.add(attack("198.51.100.1"))
    newer.add(attack("198.51.100.2"))
    assert blocklist.write(kept, newer, "job")
    assert blocklist.write(kept, newer, "job")
    assert not blocklist.write(kept, older, "job")
    assert (tmp_path / "bad").read_text() == "198.51.100.2\n"
    assert blocklist.write(kept, older, "another")


SOURCES = ("198.51.100.1", "198.51.100.2", "2001:db8::1")


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from(SOURCES), st.integers(0, 7200), st.floats(0, 1, width=32)), max_size=12),
    st.data(),
)
def test_order_and_bundles_make_no_difference(seen, data):
    """In the end, when time has come to the same place; through state or not."""

    def kept(alerts):
        list_ = Offenders(RULES)
        for source, at, score in alerts:
            list_.add(attack(source, at=at, score=[score]))
            list_ = Offenders.from_bytes(list_.to_bytes(), RULES)
        list_.advance(sink_testing.START_NS + 7200 * 1_000_000_000)
        return list_.listed()

    expected = {source for source, at, _ in seen if at > 3600}
    listed = kept(seen)
    assert {address for address, _ in listed} == expected
    assert listed == kept(data.draw(st.permutations(seen)))


def test_the_list_has_so_many_entries(tmp_path):
    """The latest offenders; what is remembered beside it is bounded, too."""
    sources = [str(ipaddress.ip_address("198.18.0.0") + number) for number in range(50)]
    flows = alert_testing.scored(range(50), src_ip=sources)
    keep(f"blocklist:{tmp_path}/bad?most=10", flows)
    assert (tmp_path / "bad.dry-run").read_text().split() == sources[40:]
    assert len(json.loads((tmp_path / "bad.json").read_text())["known"]) == 20


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ("apply=perhaps", "apply=perhaps is not one of no, yes"),
        ("format=iptables", "format=iptables is not one of plain, nftables, ipset"),
        ("name=a-b", "name=a-b is no name of at most 20 letters"),
        ("ttl_s=0", "ttl_s=0 is no number from 1"),
        ("never=10.0.0.1/8", "never=10.0.0.1/8: is no file, nor networks .*has host bits set"),
        ("colour=red", "unknown parameter 'colour'"),
    ],
)
def test_settings_are_checked_at_start(tmp_path, settings, line):
    with pytest.raises(InputError, match=line):
        opened(f"blocklist:{tmp_path}/bad?{settings}", attack("198.51.100.1"))


def test_places_and_files_are_checked_at_start(tmp_path):
    flows = attack("198.51.100.1")
    with pytest.raises(InputError, match="there is no folder"):
        opened(f"blocklist:{tmp_path}/none/bad", flows)
    with pytest.raises(InputError, match="there are alerts only where flows are scored"):
        opened(f"blocklist:{tmp_path}/bad", sink_testing.flows([1]))
    (tmp_path / "never").write_text("10.0.0.0/8\nnobody\n")
    with pytest.raises(InputError, match="never: line 2: 'nobody'"):
        opened(f"blocklist:{tmp_path}/bad?never={tmp_path}/never", flows)
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(InputError, match=r"bad.json cannot be read: not a list of offenders; move it away"):
        opened(f"blocklist:{tmp_path}/bad", flows)


def test_a_streaming_runner_keeps_it_too(tmp_path, prism):
    """State goes from bundle to bundle."""
    batches = [attack(f"198.51.100.{number}", "198.51.100.1", at=number) for number in range(1, 6)]
    pipeline = beam.Pipeline(options=PipelineOptions([*prism, "--experiments=prism_disable_sdf_split"]))
    sink = opened(f"blocklist:{tmp_path}/bad?min_flows=2", batches[0])
    _ = pipeline | "Flows" >> beam.Create(batches) | "Keep" >> sink
    pipeline.run().wait_until_finish()
    assert (tmp_path / "bad.dry-run").read_text() == "198.51.100.1\n"
    known = json.loads((tmp_path / "bad.json").read_text())["known"]
    assert {address: values[0] for address, values in known.items()} == {
        "198.51.100.1": 6, **{f"198.51.100.{number}": 1 for number in range(2, 6)},
    }  # fmt: skip
