"""Enrichment in the main job: what options do, and what a person is told."""

import subprocess
import sys

import pyarrow.compute as pc
import pyarrow.dataset
import pytest
from command_testing import ENVIRONMENT
from geoip_testing import place, system, write_database

from pipelines import first_run, flows, generate
from pipelines.enrich_options import EnrichOptions, settings_of
from transforms.enrich.settings import EnrichSettings


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """A small capture of demo traffic: 10.0.0.0/8 inside, others outside."""
    path = tmp_path_factory.mktemp("capture") / "demo.pcap"
    assert generate.main(["--output", str(path), "--packets", "3000", "--quiet"]) == 0
    return path


@pytest.fixture
def files(tmp_path):
    """What is known: everything outside of 10.0.0.0/8 is in one place."""
    networks = ["0.0.0.0/5", "16.0.0.0/4", "32.0.0.0/3", "64.0.0.0/2", "128.0.0.0/2", "2000::/3"]
    write_database(
        tmp_path / "city.mmdb", "Our-City", [(text, place("BR", "Rio", (-22.9, -43.2))) for text in networks]
    )
    write_database(tmp_path / "asn.mmdb", "Our-ASN", [(text, system(64500)) for text in networks])
    (tmp_path / "zones.csv").write_text("network,name,role,site\n10.0.0.0/8,office,clients,Rio\n")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "all.txt").write_text("32.0.0.0/3\n64.0.0.0/2\n")
    return tmp_path


def run(tmp_path, capture, *more):
    quiet = ["--runner=DirectRunner", "--quiet", "--features=cic@1", f"--input={capture}"]
    return flows.main([*quiet, f"--output=parquet:{tmp_path / 'flows'}", *more])


def test_flows_have_what_is_known_of_them(tmp_path, files, capture):
    """With every option but reverse DNS; columns say what they mean in the file, too."""
    options = [f"--geoip={files / name}" for name in ("city.mmdb", "asn.mmdb")]
    assert run(tmp_path, capture, *options, f"--zones={files / 'zones.csv'}", f"--threats={files / 'lists'}") == 0
    table = pyarrow.dataset.dataset(tmp_path / "flows").to_table()
    outbound = table.filter(pc.equal(table["locality"], "outbound"))
    assert len(outbound) > 10
    assert set(outbound["src_zone"].to_pylist()) == {"office"}
    ipv4 = outbound.filter(pc.match_substring_regex(outbound["dst_ip"], r"^\d+\."))
    assert set(ipv4["dst_city"].to_pylist()) <= {"Rio", None}
    assert "Rio" in ipv4["dst_city"].to_pylist()
    assert set(ipv4.filter(pc.is_valid(ipv4["dst_city"]))["dst_asn"].to_pylist()) == {64500}
    assert "all" in table["threat_list"].to_pylist()
    assert "https" in table["service"].to_pylist()
    assert table["enrichment_problem"].null_count == len(table)
    assert table.schema.field("dst_asn").metadata[b"ecs"] == b"destination.as.number"


def test_without_an_option_there_are_no_columns(tmp_path, capture):
    assert settings_of(EnrichOptions([])) is None
    assert run(tmp_path, capture) == 0
    names = pyarrow.dataset.dataset(tmp_path / "flows").schema.names
    assert not {"service", "locality", "enrichment_problem"} & set(names)


def test_options_become_settings():
    options = EnrichOptions(
        ["--geoip=a", "--geoip=b", "--zones=c", "--threats=d", "--threats=e", "--threat_columns=sni,host",
         "--reverse_dns", "--reverse_dns_wait_s=1.5", "--reverse_dns_threads=3"]
    )  # fmt: skip
    assert settings_of(options) == EnrichSettings(("a", "b"), "c", ("d", "e"), True, 3, 1.5, ("sni", "host"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--geoip={0}/broken.mmdb"], "broken.mmdb: broken database: "),
        (["--geoip={0}/absent.mmdb"], "absent.mmdb: No such file or directory; name a MaxMind DB file (.mmdb)"),
        (["--zones={0}/twice.csv"], "twice.csv, line 3: 10.0.0.0/8 is in line 2, too; keep one of them"),
        (["--threats={0}/bad.txt"], "bad.txt, line 2: 'no indicator' is no address, network or domain"),
        (["--reverse_dns", "--reverse_dns_threads=0"], "--reverse_dns_threads: 0; give 1 to 256"),
        (["--threats={0}/good.txt", "--threat_columns=sni"], "--threat_columns: flows have no text column 'sni'"),
        (["--check", "--threats={0}/good.txt", "--threat_columns=protocol"], "flows have no text column 'protocol'"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_read(tmp_path, capture, capsys, words, told):
    (tmp_path / "broken.mmdb").write_bytes(b"no database")
    (tmp_path / "twice.csv").write_text("network,name\n10.0.0.0/8,a\n10.0.0.0/8,b\n")
    (tmp_path / "bad.txt").write_text("10.0.0.1\nno indicator\n")
    (tmp_path / "good.txt").write_text("10.0.0.1\n")
    assert run(tmp_path, capture, *(word.format(tmp_path) for word in words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not list((tmp_path / "flows").rglob("*.parquet"))


def test_compiling_is_said_once(tmp_path, monkeypatch, capsys):
    """Whatever is compiled first; a later run of the version says nothing."""
    monkeypatch.setattr(first_run, "cache_folder", lambda: tmp_path)
    first_run._announce.cache_clear()
    first_run.compile_enrichment(quiet=False)
    first_run._announce()
    assert capsys.readouterr().err == "flowbeam: compiling kernels: once for each version, some 10 to 20 s\n"
    first_run._announce.cache_clear()
    first_run.compile_enrichment(quiet=False)
    assert capsys.readouterr().err == ""


OPENED = """
import sys
from pipelines import first_run
first_run._look_up()
from transforms.enrich import address_numbers, prefixes, search_tree
kernels = [value for module in (address_numbers, prefixes, search_tree) for value in vars(module).values()
           if hasattr(value, "signatures")]
before = [kernel.signatures for kernel in kernels]
from transforms.enrich.enrichment import enrichment_of
from transforms.enrich.settings import EnrichSettings
enrichment_of(EnrichSettings((sys.argv[1],), sys.argv[2], (sys.argv[3],)))
print(len(kernels), [kernel.signatures for kernel in kernels] == before)
"""


def test_what_is_compiled_is_all_that_a_start_needs(files):
    """Files are opened and checked by kernels that were announced: no other types of theirs come up."""
    words = [sys.executable, "-c", OPENED, *(str(files / name) for name in ("city.mmdb", "zones.csv", "lists"))]
    said = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    kernels, nothing_new = said.stdout.split()
    assert (int(kernels) > 5, nothing_new) == (True, "True"), said.stderr
