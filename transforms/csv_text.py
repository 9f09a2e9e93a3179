"""Files of text, whatever octets are in them, as UTF-8 for pyarrow's CSV reader, and the names in their first line.

The reader hands a damaged row to Python as text: one that is no UTF-8 is a traceback on standard error, and the end of
reading.
"""

import codecs
import csv

import numpy as np
import pyarrow as pa

from transforms.records import InputError

_HEADER_OCTETS = 1 << 20

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


def column_names(path: str) -> list[str]:
    """What the first line of a table says, without spaces around the names.

    Raises:
        InputError: The file cannot be read, or begins with no such line.
    """
    try:
        octets = Utf8File(path).read(_HEADER_OCTETS)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    names = "a table begins with a line of column names"
    line = octets.replace(b"\r", b"\n").partition(b"\n")[0]
    if not line:
        raise InputError(f"{path}: is empty, or its first line is; {names}")
    if len(line) == _HEADER_OCTETS:
        raise InputError(f"{path}: no line end in its first {_HEADER_OCTETS:,} octets; {names}")
    if b"\0" in line:
        raise InputError(f"{path}: has zero octets in its first line, as UTF-16 has; write it as UTF-8")
    try:
        return [name.strip() for name in next(csv.reader([line.decode("utf-8-sig")]))]
    except csv.Error as error:
        raise InputError(f"{path}: {names}, and this one cannot be read: {error}") from error


def lines_of(text: str) -> int:
    """How many lines a damaged row is: a quote that nobody closes takes all that follows with it."""
    return 1 + text.count("\n")


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").copy()
        wrong = (letters >= _ESCAPED) & (letters < _ESCAPED + len(_WINDOWS_1252))
        letters[wrong] = _WINDOWS_1252[letters[wrong] - _ESCAPED]
        return letters.tobytes().decode("utf-32-le").encode()
