"""What tests of commands share: kernels compiled before the first of them, and a capture."""

from pathlib import Path

import pytest

from pipelines import flows
from pipelines.first_run import compile_kernels
from sources.generate.capture import GenerateSettings, generate


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Commands say nothing of compiling, take their usual time, and write nothing but their output."""
    compile_kernels((), quiet=True)
    folder = tmp_path_factory.mktemp("compiled")
    generate(GenerateSettings(output=str(folder / "a.pcap"), packets=100))
    assert flows.main(["--input", str(folder / "a.pcap"), "--output", f"parquet:{folder}/flows", "--quiet"]) == 0


@pytest.fixture(scope="session")
def traffic(compiled: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture of 3,000 packets; beside it the labels of its flows, `traffic.csv`."""
    folder = tmp_path_factory.mktemp("traffic")
    path = folder / "traffic.pcap"
    generate(GenerateSettings(output=str(path), packets=3000, labels=str(folder / "traffic.csv")))
    return path
