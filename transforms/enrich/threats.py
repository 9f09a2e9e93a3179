"""Threat lists: addresses, networks and domains that others have seen attack."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh64_intdigest

from transforms.enrich.address_numbers import HOST_BITS, NO_NETWORK, network_numbers
from transforms.enrich.prefixes import Prefixes
from transforms.enrich.tables import JSON_LINES, read_table, read_text
from transforms.enrich.watched import files_of
from transforms.fields import Field
from transforms.records import InputError

FIELDS = (
    Field(
        "threat_list",
        pa.string(),
        "",
        "List that names a side of the flow; null if none does.",
        "",
        "threat.feed.name",
    ),
    Field(
        "threat_indicator",
        pa.string(),
        "",
        "What the list names: address, network or domain.",
        "",
        "threat.indicator.name",
    ),
    Field("threat_confidence", pa.float64(), "percent", "How sure the list is of it; null where it does not say."),
    Field("threat_side", pa.string(), "", "Side that is named, `src` or `dst`."),
)
"""The columns that threat lists give."""

KEPT_NAMES = 1 << 17
"""Host names whose indicator is kept."""

_TYPES = {"indicator": pa.string(), "list": pa.string(), "confidence": pa.float64()}
_DOMAIN = r"^([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]$"
_COMMENT = r"\s*[#;].*$"


class Indicators(NamedTuple):
    """What lists name, a row each.

    Attributes:
        text: The address, network, or domain in lower case.
        list: Name of its list.
        confidence: 0 to 100; NaN where the list does not say.
        hi: First address, high half.
        lo: Low half.
        length: Leading bits; NO_NETWORK for a domain.
    """

    text: pa.StringArray
    list: pa.StringArray
    confidence: np.ndarray
    hi: np.ndarray
    lo: np.ndarray
    length: np.ndarray


def read_lists(path: Path) -> list[Indicators]:
    """The lists of a file or of the files of a folder.

    `.csv` has a header with `indicator` and if wanted `list` and `confidence`; `.jsonl`, `.ndjson` and `.json` have
    objects with these, one a line; any other file has one indicator a line, and comments behind `#` or `;`.

    Raises:
        InputError: A file cannot be read, or a line is no indicator; the message names it.
    """
    try:
        files = files_of(path)
    except OSError as error:
        raise InputError(f"--threats {path}: {error.strerror or error}; name a folder that can be read") from error
    if not files:
        raise InputError(f"--threats {path}: is an empty folder; put lists into it")
    return [_read_list(file) for file in files]


def _read_list(path: Path) -> Indicators:
    if path.suffix in (".csv", *JSON_LINES):
        lines, columns = read_table("--threats", path, _TYPES)
        numbers = np.array(lines, np.int64)
        text, names, confidence = columns["indicator"], columns["list"], columns["confidence"]
        if text.null_count:
            absent = numbers[pc.index(text.is_null(), True).as_py()]
            raise InputError(f"--threats {path}, line {absent}: has no indicator")
    else:
        every = pc.split_pattern(pa.array([read_text("--threats", path)]), "\n").flatten()
        every = pc.utf8_trim_whitespace(pc.replace_substring_regex(every, _COMMENT, ""))
        kept = np.flatnonzero(pc.not_equal(every, "").to_numpy(zero_copy_only=False))
        numbers, text = kept + 1, every.take(pa.array(kept))
        names, confidence = pa.nulls(len(text), pa.string()), pa.nulls(len(text), pa.float64())
    sure = confidence.fill_null(np.nan).to_numpy()
    _refuse(path, numbers, confidence, (sure < 0) | (sure > 100), "is no confidence; give 0 to 100")
    hi, lo, length = network_numbers(text)
    _refuse(
        path, numbers, text, length == HOST_BITS, "has bits set behind its length; write the network's first address"
    )
    domains = length == NO_NETWORK
    if domains.any():
        hosts = _as_in_dns(pc.utf8_rtrim(pc.replace_substring_regex(pc.utf8_lower(text), r"^(\*\.|\.)", ""), "."))
        is_domain = pc.match_substring_regex(hosts, _DOMAIN).to_numpy(zero_copy_only=False)
        _refuse(path, numbers, text, domains & ~is_domain, "is no address, network or domain; write one a line")
        text = pc.if_else(pa.array(domains), hosts, text)
    return Indicators(text, names.fill_null(path.stem), sure, hi, lo, length)


def _as_in_dns(names: pa.StringArray) -> pa.StringArray:
    """Internationalized names as DNS has them, `xn--…` (RFC 3490); what is none stays as it is."""
    is_other = pc.invert(pc.string_is_ascii(names))
    encoded = list(map(_encoded, names.filter(is_other).to_pylist()))
    return pc.replace_with_mask(names, is_other, pa.array(encoded, pa.string()))


def _encoded(name: str) -> str:
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return name


def _refuse(path: Path, lines: np.ndarray, values: pa.Array, wrong: np.ndarray, why: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"--threats {path}, line {lines[row]}: {values[row].as_py()!r} {why}")


def _hashes(names: list[str]) -> np.ndarray:
    return np.fromiter((xxh64_intdigest(name.encode()) for name in names), np.uint64, len(names))


class Threats:
    """Lists together. The narrowest network counts; of equal indicators the surest, then that of the first list.

    Args:
        lists: The lists, in order.
    """

    def __init__(self, lists: Sequence[Indicators]) -> None:
        sure = np.nan_to_num(np.concatenate([one.confidence for one in lists]), nan=-1.0)
        order = np.argsort(-sure, kind="stable")
        rows = pa.array(order)
        self._text = pa.concat_arrays([one.text for one in lists]).take(rows)
        self._list = pa.concat_arrays([one.list for one in lists]).dictionary_encode().take(rows)
        self._sure = np.append(sure[order], -2.0)  # the last one is that of row −1; −1 is a list that does not say
        hi, lo, length = (
            np.concatenate([getattr(one, name) for one in lists])[order] for name in ("hi", "lo", "length")
        )
        networks = np.flatnonzero(length != NO_NETWORK).astype(np.int32)
        self._network_rows = np.append(networks, np.int32(-1))
        self._prefixes = Prefixes(hi[networks], lo[networks], length[networks])
        domains = np.flatnonzero(length == NO_NETWORK).astype(np.int32)
        names = self._text.take(pa.array(domains)).to_pylist()
        hashes = _hashes(names)
        self._hashes, first = np.unique(hashes, return_index=True)
        self._domain_rows = domains[first]
        self._row_of: dict[str | None, int] = {None: -1}

    @property
    def domains(self) -> int:
        """How many domains they name."""
        return len(self._domain_rows)

    def find(self, hi: np.ndarray, lo: np.ndarray) -> np.ndarray:
        """The row of the indicator that names each address, −1 without."""
        return self._network_rows[self._prefixes.find(hi, lo)]

    def find_names(self, names: pa.StringArray) -> np.ndarray:
        """The row of the indicator for each host name or the narrowest domain around it, −1 without."""
        if not self.domains:
            return np.full(len(names), -1, np.int32)
        texts = names.to_pylist()
        if len(self._row_of) > KEPT_NAMES:
            self._row_of = {None: -1}
        row_of = self._row_of
        row_of.update(self._rows_of_names([name for name in texts if name not in row_of]))
        return np.fromiter(map(row_of.__getitem__, texts), np.int32, len(texts))

    def _rows_of_names(self, names: list[str]) -> dict[str | None, int]:
        rows: dict[str | None, int] = dict.fromkeys(names, -1)
        owners, parents = [], []
        for name in rows:
            labels = str(name).lower().rstrip(".").split(".")
            for at in range(len(labels) - 1):
                owners.append(name)
                parents.append(".".join(labels[at:]))
        hashes = _hashes(parents)
        places = np.searchsorted(self._hashes, hashes)
        places[places == len(self._hashes)] = 0
        for hit in reversed(np.flatnonzero(self._hashes[places] == hashes).tolist()):
            row = int(self._domain_rows[places[hit]])
            if self._text[row].as_py() == parents[hit]:
                rows[owners[hit]] = row
        return rows

    def columns(self, candidates: Sequence[tuple[str, np.ndarray]]) -> list[pa.Array]:
        """The columns of flows.

        Args:
            candidates: A side, and for each flow the row of an indicator that names it, −1 without. Where there are
                several, the surest counts, then the first.
        """
        best = np.full(len(candidates[0][1]), -1, np.int32)
        best_side, best_sure = np.zeros(len(best), np.int8), np.full(len(best), -2.0)
        for side, rows in candidates:
            sure = self._sure[rows]
            better = sure > best_sure
            best, best_sure = np.where(better, rows, best), np.where(better, sure, best_sure)
            best_side = np.where(better, side == "dst", best_side)
        none = best < 0
        taken = pa.array(best, mask=none)
        return [
            self._list.take(taken).cast(pa.string()),
            self._text.take(taken),
            pa.array(self._sure[best], mask=self._sure[best] < 0),
            pa.array(["src", "dst"]).take(pa.array(best_side.astype(np.int8), mask=none)),
        ]
