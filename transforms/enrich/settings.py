"""What flows are enriched with, as one value that travels to the workers."""

from dataclasses import dataclass

import pyarrow as pa

from transforms.records import InputError


@dataclass(frozen=True)
class EnrichSettings:
    """Where what is known of addresses comes from.

    Attributes:
        geoip: MaxMind DB files; the first that knows an address counts.
        zones: File of zones.
        threats: Files and folders of threat lists.
        reverse_dns: Ask the system's resolver for the names of addresses.
        reverse_dns_threads: Questions at a time.
        reverse_dns_wait_s: The longest that a batch of flows waits for answers.
        threat_columns: Text columns of flows that domains of threat lists are looked for in.
    """

    geoip: tuple[str, ...] = ()
    zones: str | None = None
    threats: tuple[str, ...] = ()
    reverse_dns: bool = False
    reverse_dns_threads: int = 16
    reverse_dns_wait_s: float = 0.2
    threat_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.reverse_dns_threads <= 256:
            raise InputError(f"--reverse_dns_threads: {self.reverse_dns_threads}; give 1 to 256")
        if not 0 <= self.reverse_dns_wait_s <= 60:
            raise InputError(f"--reverse_dns_wait_s: {self.reverse_dns_wait_s:g} s; give 0 to 60")
        if self.threat_columns and not self.threats:
            raise InputError("--threat_columns: there are no lists to look in; give --threats, too")
        for option, paths in (("geoip", self.geoip), ("threats", self.threats)):
            twice = [path for path in paths if paths.count(path) > 1]
            if twice or "" in paths:
                raise InputError(f"--{option}: {f'names {twice[0]} twice' if twice[0:] and twice[0] else 'is empty'}")

    def check(self, flows: pa.Schema) -> None:
        """Refuses flows without the text columns that domains are looked for in.

        Raises:
            InputError: It names the column.
        """
        for name in self.threat_columns:
            if name not in flows.names or not pa.types.is_string(flows.field(name).type):
                raise InputError(f"--threat_columns: flows have no text column {name!r}; name one that they have")

    @property
    def asks_for_something(self) -> bool:
        """Whether anything is to be added to flows."""
        return bool(self.geoip or self.zones or self.threats or self.reverse_dns)
