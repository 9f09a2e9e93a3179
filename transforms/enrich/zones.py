"""Zones: networks of one's own with a name, a role and a site; and which way flows go between them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.enrich.address_numbers import HOST_BITS, NO_NETWORK, network_numbers
from transforms.enrich.prefixes import Prefixes
from transforms.enrich.tables import read_table
from transforms.fields import Field
from transforms.records import InputError

EXTERNAL_ROLE = "external"
"""Networks with this role have a name and are none of one's own."""

LOCALITIES = pa.array(["external", "inbound", "outbound", "internal"])
"""By whether the responder is internal, and 2 for whether the initiator is."""

_KEYS = ("network", "name", "role", "site")
_COLUMNS = (("zone", "Zone"), ("role", "Role of the zone"), ("site", "Site of the zone"))


def _fields() -> Iterator[Field]:
    for side, who in (("src", "initiator"), ("dst", "responder")):
        for name, doc in _COLUMNS:
            yield Field(f"{side}_{name}", pa.string(), "", f"{doc}, of the {who}'s address.")
    doc = "`internal`, `inbound`, `outbound` or `external`: by which sides are in zones of one's own."
    yield Field("locality", pa.string(), "", doc, "", "network.direction")


FIELDS = tuple(_fields())
"""The columns that a file of zones gives."""


class Zones:
    """The zones of a file.

    Args:
        path: CSV with a header, or JSON lines: `network`, `name`, and if wanted `role` and `site`.

    Attributes:
        columns: Name, role and site of each zone.

    Raises:
        InputError: The file cannot be read, a row is no zone, or two rows have the same network.
    """

    def __init__(self, path: Path) -> None:
        lines, columns = read_table("--zones", path, dict.fromkeys(_KEYS, pa.string()))
        if not lines:
            raise InputError(f"--zones {path}: has no zones; give rows under a header network,name,role,site")
        for key in ("network", "name"):
            if columns[key].null_count:
                absent = pc.index(columns[key].is_null(), True).as_py()
                raise InputError(f"--zones {path}, line {lines[absent]}: has no {key}")
        numbers = network_numbers(columns["network"])
        seen: dict[tuple[int, ...], int] = {}
        for row, network in enumerate(zip(*(half.tolist() for half in numbers), strict=True)):
            at = f"--zones {path}, line {lines[row]}: {columns['network'][row]}"
            if network[2] == NO_NETWORK:
                raise InputError(f"{at} is no network; write one like 10.20.0.0/16 or 2001:db8::/32")
            if network[2] == HOST_BITS:
                raise InputError(f"{at} has bits set behind its length; write the first address of the network")
            if network in seen:
                raise InputError(f"{at} is in line {lines[seen[network]]}, too; keep one of them")
            seen[network] = row
        self._prefixes = Prefixes(*numbers)
        self.columns = [columns[key] for key in _KEYS[1:]]
        internal = pc.fill_null(pc.not_equal(columns["role"], EXTERNAL_ROLE), True)
        self._internal = np.append(internal.to_numpy(zero_copy_only=False), False)  # the last one is that of row −1

    def find(self, hi: np.ndarray, lo: np.ndarray) -> np.ndarray:
        """The zone of each address, that of the narrowest network, as a row of `columns`; −1 without."""
        return self._prefixes.find(hi, lo)

    def localities(self, src: np.ndarray, dst: np.ndarray) -> pa.StringArray:
        """The column `locality`, from the zones of the two sides."""
        inside = self._internal.view(np.int8)
        return LOCALITIES.take(pa.array(2 * inside[src] + inside[dst]))
