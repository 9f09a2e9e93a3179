"""Sends what servers did not take: blocks that a job with `--on_sink_failure=continue` wrote aside.

    python -m pipelines.resend unsent

A block's file is removed when the server has it. What the server refuses goes to rejects, as in the job. It may be run
while the job goes on, and as often as one likes: a record that is there already stays as it is.
"""

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.config import parsed
from pipelines.terminal import configure_logging, leave
from sinks import outputs, unsent
from sinks.blocks import BlockSender, Sent, WriteBlocks
from sinks.command import OneLineParser, status_of
from sinks.journal import Journal
from sinks.outputs import SinkContext
from sinks.record_files import complete
from sinks.rejects import RejectFiles
from sinks.unsent import Block
from transforms.records import InputError, Reject


def resend(folder: Path, rejects: Path, output: str | None, retry_s: float) -> tuple[int, int]:
    """Sends every block of the folder.

    Args:
        folder: Where they wait.
        rejects: Folder for what servers refuse.
        output: Where to send them instead of where they were meant for.
        retry_s: How long a server is tried for a block.

    Returns:
        How many records were accepted and how many refused.

    Raises:
        InputError: A server is away or does not accept a block, or a file is damaged. What was sent is removed.
    """
    senders: dict[tuple[str, bytes], BlockSender] = {}
    accepted = refused = 0
    try:
        for block in unsent.blocks(folder):
            key = (output or block.output, bytes(block.flows.schema.serialize()))
            if key not in senders:
                senders[key] = _sender(key[0], block, retry_s)
            sent: Sent = senders[key].send(block.flows)
            if sent.rejects:
                write_rejects(rejects, sent.rejects)
            block.path.unlink(missing_ok=True)
            accepted += sent.written
            refused += len(sent.rejects)
    finally:
        for sender in senders.values():
            sender.close()
    return accepted, refused


def _sender(output: str, block: Block, retry_s: float) -> BlockSender:
    context = SinkContext(block.feature_sets, block.flows.schema, secrets.token_hex(8), retry_s=retry_s)
    ((url, sink),) = outputs.open_outputs([output], context)
    if not isinstance(sink, WriteBlocks):
        raise InputError(f"{url}: is no server that blocks are sent to; name another --output")
    return sink.sender()


def write_rejects(folder: Path, rejects: Iterable[Reject]) -> None:
    """Writes rejects to a file of their own in the folder."""
    files = RejectFiles(folder)
    journal = Journal.create(files.folder, "resend", files.schema)
    journal.append([files.batch(list(rejects))])
    complete(journal, files)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    configure_logging()
    return status_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = OneLineParser(prog="python -m pipelines.resend", description="Sends what servers did not take.")
    parser.add_argument("folder", nargs="?", default="unsent", metavar="DIR", help="Where it waits. Default unsent.")
    parser.add_argument("--output", metavar="URL", help="Send it here instead.")
    parser.add_argument("--rejects", metavar="DIR", help="Folder of what is refused. Default `rejects` beside DIR.")
    parser.add_argument("--retry_s", metavar="S", type=float, default=60.0, help="Try so long. Default 60.")
    options = parsed(parser, arguments)
    folder = Path(options.folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; name the one that the job wrote to")
    rejects = Path(options.rejects) if options.rejects else folder.absolute().parent / "rejects"
    accepted, refused = resend(folder, rejects, options.output, options.retry_s)
    print(f"{accepted:,} records sent, {refused:,} refused" + (f", those are in {rejects}" if refused else ""))


if __name__ == "__main__":
    leave(main())
