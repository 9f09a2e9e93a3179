"""Prism, Beam's local runner for streams; Beam starts one for each pipeline."""

from pathlib import Path

from servers.install import installed


def prism_binary() -> Path:
    """The program."""
    return installed("prism") / "prism"


def prism_arguments() -> list[str]:
    """The pipeline options that run a pipeline on it, with this process as its worker."""
    return ["--runner=PrismRunner", f"--prism_location={prism_binary()}", "--environment_type=LOOPBACK"]
