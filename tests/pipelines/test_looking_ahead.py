"""The main job scans its capture while it is built."""

from pipelines import bounded, flows
from pipelines.options import parse_options
from sources import captures, scan_ahead


def test_a_capture_is_scanned_once(traffic, tmp_path, monkeypatch):
    """And not by its reader."""
    monkeypatch.delattr(captures, "scan")
    assert flows.main(["--input", str(traffic), "--output", f"parquet:{tmp_path}/flows", "--quiet"]) == 0
    assert len(list(tmp_path.glob("flows/*/*.parquet"))) > 0


def test_who_does_not_read_it_here_does_not_scan_it(traffic):
    for other in ("--check", "--dry_run", "--runner=PrismRunner"):
        bounded.look_ahead(parse_options(["--input", str(traffic), other]))
        assert scan_ahead.taken(str(traffic)) is None
    bounded.look_ahead(parse_options(["--input", str(traffic)]))
    assert scan_ahead.taken(str(traffic)) is not None
