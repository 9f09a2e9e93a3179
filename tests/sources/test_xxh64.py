"""XXH64 against the vectors of other implementations."""

import numpy as np
import pytest

from sources.xxh64 import xxh64


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"a", 0xD24EC4F1A98C6E5B),
        (b"abc", 0x44BC2CF5AD770999),
        (b"Call me Ishmael. Some years ago--never mind how long precisely-", 0x02A2E85470D6FD96),
    ],
    ids=["empty", "one-octet", "three-octets", "sixty-three-octets"],
)
def test_published_vectors(text, digest):
    """Of xxHash's own documentation and of the implementations in Go and Python."""
    octets = np.frombuffer(b"<" + text + b">", np.uint8)
    assert int(xxh64(octets, 1, 1 + len(text))) == digest
