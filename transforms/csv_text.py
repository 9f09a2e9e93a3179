"""Files of text, whatever octets are in them, as UTF-8 for pyarrow's CSV reader.

The reader hands a damaged row to Python as text: one that is no UTF-8 is a traceback on standard error, and the end of
reading.
"""

import codecs

import numpy as np
import pyarrow as pa

_ESCAPED = 0xDC80
"""Where Python's `surrogateescape` puts the octet 0x80, if it is no UTF-8, and those after it."""

_WINDOWS_1252 = np.array(
    [ord(bytes([octet]).decode("cp1252", errors="replace")) for octet in range(0x80, 0x100)], "<u4"
)


class Utf8File:
    """A file, plain or compressed as its name ends, as UTF-8; pyarrow reads it like a file.

    Octets that are no UTF-8 are taken as Windows-1252, in which CIC-IDS2017 writes the dash of its labels. A stretch of
    ASCII passes as it is.

    Raises:
        OSError: There is no such file.
    """

    def __init__(self, path: str) -> None:
        self._stream = pa.input_stream(path)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._rest = b""

    @property
    def closed(self) -> bool:
        """Whether nothing more can be read."""
        return bool(self._stream.closed)

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()

    def read(self, most: int) -> bytes:
        """The next octets, at most so many; none at the end."""
        while not self._rest:
            octets = self._stream.read(most)
            if octets.isascii() and not self._decoder.getstate()[0]:
                return octets
            self._rest = _encoded(self._decoder.decode(octets, final=not octets))
            if not octets:
                break
        given, self._rest = self._rest[:most], self._rest[most:]
        return given


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").copy()
        wrong = (letters >= _ESCAPED) & (letters < _ESCAPED + len(_WINDOWS_1252))
        letters[wrong] = _WINDOWS_1252[letters[wrong] - _ESCAPED]
        return letters.tobytes().decode("utf-32-le").encode()
