"""Stopping the main job on endless input, with real runners: files complete, nothing forced, nobody left behind."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import psutil
import pytest
from command_testing import ENVIRONMENT, command, files_of
from flow_testing import packets
from servers.processes import wait_until

import queues
from transforms import avro
from transforms.records import PacketBatch, Stream

LIMIT_S = 180


@pytest.fixture
def spool(tmp_path: Path) -> str:
    """A line on which one flow has ended and one has not; its sensor has not ended either."""
    writer = queues.open_live(f"spool:{tmp_path / 'spool'}?file_octets=1")
    for sequence, at_s in enumerate((0, 100)):
        made = packets(at_s=[at_s], src_port=1000 + sequence)
        block = PacketBatch(Stream("north", 7), sequence, int(made["time_ns"][0]), made)
        assert writer.put(avro.encode_block(block), 0, "north")
    writer.close()
    return f"spool:{tmp_path / 'spool'}"


@contextlib.contextmanager
def job(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The main job as a process, in a session of its own as a terminal gives one; killed in the end."""
    words = command("--streaming", "--idle_timeout_s=10", "--output", "parquet:flows", *arguments)
    with subprocess.Popen(
        words, cwd=folder, env=ENVIRONMENT, start_new_session=True, stdout=-1, stderr=-1, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_a_flow(process: subprocess.Popen[str], folder: Path) -> None:
    """Until the flow that ended is safe in a journal, or a file."""

    def there() -> bool:
        assert process.poll() is None, process.communicate()
        return any(path.stat().st_size > 0 for path in (folder / "flows").rglob("*") if path.is_file())

    wait_until(there, LIMIT_S, "a flow is written")


def companions(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """What the job started beside itself."""
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> Callable[[], bool]:
    """Tells whether none of them is there any more."""
    return lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


def check_files(folder: Path) -> None:
    """The flow that ended is in a file, and the one that did not is in none."""
    flows = duckdb.sql(f"SELECT src_port, end_reason FROM '{folder}/flows/*/*.parquet'").fetchall()
    assert flows == [(1000, 1)]
    hidden = [name for name in files_of(folder) if Path(name).name.startswith(".") and not name.startswith("spool/")]
    assert hidden == []


@pytest.mark.parametrize("how", ["a terminal's Ctrl-C", "SIGTERM"])
def test_a_stop_on_prism_completes_the_files(how, compiled, prism, spool, tmp_path):
    """Ctrl-C reaches every process of the terminal's group; a service manager's SIGTERM only the job."""
    with job(tmp_path, *prism, "--input", spool) as process:
        wait_for_a_flow(process, tmp_path)
        runner = companions(process)
        assert [one.name() for one in runner] == ["prism"]
        if how == "SIGTERM":
            process.send_signal(signal.SIGTERM)
        else:
            os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, err) == (0, "flowbeam: running; Ctrl-C completes the files and stops\n")
        assert re.search(r"^(flows |figures  not known)", out, re.MULTILINE)  # no bundle may have told the runner yet
        wait_until(gone(runner), 5, "Prism has ended")
    check_files(tmp_path)


def test_a_kill_takes_prism_along(compiled, prism, spool, tmp_path):
    """What the killed job had written is completed by the next one: here by one that is stopped as soon as it runs."""
    with job(tmp_path, *prism, "--input", spool) as process:
        wait_for_a_flow(process, tmp_path)
        runner = companions(process)
        process.kill()
        process.wait()
        wait_until(gone(runner), 5, "Prism is gone, too")
    with job(tmp_path, *prism, "--input", spool, "--start_at=latest") as process:
        assert process.stderr is not None
        assert "running" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0
    check_files(tmp_path)


def test_a_runner_that_dies_is_one_line(compiled, prism, spool, tmp_path):
    """What was put out before is in files."""
    with job(tmp_path, *prism, "--input", spool) as process:
        wait_for_a_flow(process, tmp_path)
        for runner in companions(process):
            runner.kill()
        _, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 2
        assert [line for line in err.splitlines() if "running" not in line] == [
            "flowbeam: the runner no longer answers: it was killed, or ran out of memory; start the job again"
        ]
    check_files(tmp_path)


@pytest.mark.xdist_group("flink")
def test_a_stop_on_flink_cancels_the_job_there(compiled, flink, spool, tmp_path):
    """It says from where the next job goes on."""
    arguments = [one for one in flink.pipeline_args(parallelism=1, checkpoint_ms=500) if one != "--streaming"]
    before = flink.jobs()
    with job(tmp_path, *arguments, f"--flink_master={flink.rest_url}", "--input", spool) as process:
        wait_for_a_flow(process, tmp_path)
        (ours,) = set(flink.jobs()) - set(before)
        wait_until(lambda: flink.completed_checkpoints(ours) > 0, LIMIT_S, "a checkpoint is complete")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, err
    assert flink.jobs()[ours] == "CANCELED"
    assert re.search(r"go on where this job ended: --savepoint_path=file:/\S+/chk-\d+$", err, re.MULTILINE)
    check_files(tmp_path)
