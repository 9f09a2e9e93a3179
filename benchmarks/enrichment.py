"""Flows enriched a second, with everything on, and what that takes to start.

    python benchmarks/enrichment.py [--seconds 3] [--prefix 17] [--indicators 1000000]

Batches of 8,192 flows with the columns of `cic@1` go through the step `EnrichFlows` as workers run it. On are: a City
database with another place for each of 131,072 networks (/17), GeoLite2-ASN if FLOWBEAM_CORPUS or ../shared/data has
it (else one that is made), 1,000 zones, a threat list of 1,000,000 addresses and networks and 1,000 domains, services;
and, in a second pair of lines, reverse DNS with a resolver that answers at once, so that what is measured is ours.

- `repeated`: all flows are between 50,000 addresses, each met before time is taken.
- `new`: no address is met twice.

The best of three runs counts, of `--seconds` each; the median stands beside it. The second figure is flows per second
of processor time, all threads together: on a busy machine that is the one to look at.
"""

import argparse
import lzma
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests")]

from geoip_testing import place, system, write_database  # noqa: E402
from sink_testing import flows  # noqa: E402

from transforms.enrich import host_names  # noqa: E402
from transforms.enrich.enrich_flows import _EnrichFn  # noqa: E402
from transforms.enrich.enrichment import enrichment_of  # noqa: E402
from transforms.enrich.settings import EnrichSettings  # noqa: E402

ROWS = 8192
REPEATED = 50_000
RUNS = 3
CORPUS = Path(os.environ.get("FLOWBEAM_CORPUS") or CHECKOUT.parent / "shared" / "data")


def dotted(address: int) -> str:
    """An IPv4 address as text."""
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


def databases(folder: Path, prefix: int) -> tuple[str, str]:
    """A City database that knows every IPv4 address, and an ASN database."""
    networks = [f"{dotted(number << (32 - prefix))}/{prefix}" for number in range(1 << prefix)]
    places = (place("BR", f"City {number}", (number % 90, number % 180)) for number in range(len(networks)))
    city = folder / "City.mmdb"
    write_database(city, "Made-City", zip(networks, places, strict=True), record_bits=28)
    packed = CORPUS / "geoip" / "GeoLite2-ASN-20181120.mmdb.xz"
    asn = folder / "ASN.mmdb"
    if packed.exists():
        asn.write_bytes(lzma.decompress(packed.read_bytes()))
    else:
        write_database(asn, "Made-ASN", ((text, system(i % 60_000, f"AS {i}")) for i, text in enumerate(networks)))
    return str(city), str(asn)


def lists(folder: Path, indicators: int, random: np.random.Generator) -> tuple[str, str]:
    """Zones and a threat list."""
    zones = [
        f"10.{number >> 2}.{64 * (number & 3)}.0/18,zone {number},role {number % 7},site {number % 5}"
        for number in range(1000)
    ]
    (folder / "zones.csv").write_text("\n".join(["network,name,role,site", *zones]) + "\n")
    addresses = map(dotted, random.choice(1 << 32, indicators, replace=False).tolist())
    lines = [f"{a.rpartition('.')[0]}.0/24" if i % 10 == 0 else a for i, a in enumerate(addresses)]
    (folder / "threats.txt").write_text("\n".join([*lines, *(f"bad{n}.example" for n in range(1000))]) + "\n")
    return str(folder / "zones.csv"), str(folder / "threats.txt")


def batches(random: np.random.Generator, pool: np.ndarray | None) -> Iterator[pa.RecordBatch]:
    """Batches of flows between addresses of the pool; without one, between addresses that never come again."""
    base = flows(list(range(ROWS)), dst_port=[443] * ROWS, protocol=[6] * ROWS)
    while True:
        taken = random.choice(pool, 2 * ROWS) if pool is not None else random.integers(0, 1 << 32, 2 * ROWS)
        texts = [dotted(address) for address in taken.tolist()]
        ports = pa.array(random.integers(0, 65536, ROWS), pa.uint16())
        batch = base.set_column(
            base.schema.get_field_index("src_ip"), base.schema.field("src_ip"), pa.array(texts[:ROWS])
        )
        batch = batch.set_column(
            base.schema.get_field_index("dst_ip"), base.schema.field("dst_ip"), pa.array(texts[ROWS:])
        )
        yield batch.set_column(base.schema.get_field_index("dst_port"), base.schema.field("dst_port"), ports)


def flows_per_s(step: _EnrichFn, source: Iterator[pa.RecordBatch], seconds: float) -> tuple[float, float]:
    """Flows of batches that are made before, in the step alone: a second, and a second of processor time."""
    spent, used, count = 0.0, 0.0, 0
    while spent < seconds:
        ready = [next(source) for _ in range(8)]
        start, start_used = time.perf_counter(), time.process_time()
        for batch in ready:
            for enriched in step.process(batch):
                count += len(enriched)
        spent += time.perf_counter() - start
        used += time.process_time() - start_used
    return count / spent, count / used


def resident_mb() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def measure(named: str, settings: EnrichSettings, seconds: float) -> None:
    """Prints what one combination of settings does."""
    before = resident_mb()
    start = time.perf_counter()
    enrichment_of(settings)
    took = time.perf_counter() - start
    step = _EnrichFn(settings)
    step.setup()
    random = np.random.default_rng(1)
    pool = random.integers(0, 1 << 32, REPEATED)
    pool[: REPEATED // 2] = 10 << 24 | pool[: REPEATED // 2] >> 8
    print(f"{named}: start {took:.1f} s, {resident_mb() - before:.0f} MB", flush=True)
    for kind, source in (("repeated", batches(random, pool)), ("new", batches(random, None))):
        met = 0
        while met < 3 * REPEATED:
            met += sum(len(enriched) for enriched in step.process(next(source)))
        runs = zip(*(flows_per_s(step, source, seconds) for _ in range(RUNS)), strict=True)
        for clock, rates in zip(("wall", "processor"), runs, strict=True):
            best, median = max(rates), statistics.median(rates)
            print(f"  {kind:9} {clock:9} best {best:9,.0f} flows/s, median {median:9,.0f}", flush=True)
    print(f"  then {resident_mb() - before:.0f} MB", flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--prefix", type=int, default=17)
    parser.add_argument("--indicators", type=int, default=1_000_000)
    arguments = parser.parse_args()
    random = np.random.default_rng(7)
    with tempfile.TemporaryDirectory(prefix="flowbeam-enrichment-") as name:
        folder = Path(name)
        geoip = databases(folder, arguments.prefix)
        zones, threats = lists(folder, arguments.indicators, random)
        settings = EnrichSettings(geoip, zones, (threats,))
        measure("everything but host names", settings, arguments.seconds)
        host_names.HostNames.__init__.__defaults__ = (lambda address: f"h{address}.example", host_names.KEPT_NAMES)
        measure("with host names", EnrichSettings(geoip, zones, (threats,), reverse_dns=True), arguments.seconds)


if __name__ == "__main__":
    main()
