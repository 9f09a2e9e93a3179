"""What all tests share: the corpus of captures, slow tests by request, real servers, hypothesis without deadlines."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["servers.fixtures"]

CORPUS = Path(os.environ.get("FLOWBEAM_CORPUS") or Path(__file__).parents[2] / "shared" / "data")

settings.register_profile("flowbeam", deadline=None)  # the first example compiles kernels
settings.load_profile("flowbeam")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fails where groups are torn; skips slow tests unless asked for, and (but in CI) those of captures not there."""
    if "PYTEST_XDIST_WORKER" in os.environ and item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
        pytest.fail("tests of a group share a server, and xdist spreads them: --dist=loadgroup", pytrace=False)
    if item.get_closest_marker("slow") and not os.environ.get("FLOWBEAM_CHECK_ALL"):
        pytest.skip("slow: `make check-all` runs it")
    if item.get_closest_marker("corpus") and not (CORPUS / "captures.csv").exists():
        missing = f"no real captures in {CORPUS}; set FLOWBEAM_CORPUS to their folder, or to none"
        if os.environ.get("CI") == "true" and str(CORPUS) != "none":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real captures and of what other tools say about them; for tests marked `corpus`."""
    return CORPUS
