"""Blocks that a test needs on a queue, put there as a sensor puts them."""

from collections.abc import Iterable

from servers.processes import wait_until

import queues
from transforms import avro

LIMIT_S = 120


def put_all(url: str, messages: Iterable[bytes]) -> None:
    """Puts blocks into the partitions of their streams, and returns when the queue has them for good."""
    files = url.startswith("spool:")  # they are complete when the queue is closed
    writer = queues.open_live(f"{url}{'&' if '?' in url else '?'}file_max_age_s=3600" if files else url)
    put = 0

    def is_put(message: bytes) -> bool:
        stream = avro.decode_header(message).stream
        return writer.put(message, stream.partition % writer.partitions, stream.sensor) or writer.settled(0.05) < 0

    try:
        for message in messages:
            wait_until(lambda message=message: is_put(message), LIMIT_S, f"{url} takes a block")
            put += 1
        if not files:
            wait_until(lambda: writer.settled(0.1) == put, LIMIT_S, f"{url} has all blocks")
    finally:
        writer.close()
