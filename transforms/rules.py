"""The settings that decide what a flow is."""

from dataclasses import dataclass

from transforms.records import InputError

END_RULES = ("tcp", "idle", "active", "reuse")
NS_PER_S = 1_000_000_000


@dataclass(eq=False)
class Rules:
    """When flows end, what their key is, and how much a table may hold.

    Attributes:
        end_rules: Which of `END_RULES` apply.
        idle_timeout_s: A flow ends when the next packet comes this long after the last, or later.
        active_timeout_s: A flow is split this long after its part's first packet.
        tcp_linger_s: How long a closed TCP connection keeps what trails the close.
        activity_timeout_s: Gaps longer than this part active periods.
        interim_interval_s: Open flows that changed are reported at multiples of this; 0 never.
        icmp_key: `type` puts ICMP's type and code into the ports (Community ID), `none` makes the ports 0.
        ignore_vni: Leaves the VXLAN or Geneve network out of the key.
        drop_duplicates_s: Packets with equal headers within this time are rejected; 0 never.
        max_open_flows: Flows open in event time, per table; idle longest ends first beyond.
        community_id_seed: Seed of the Community ID.
    """

    end_rules: tuple[str, ...] = END_RULES
    idle_timeout_s: float = 120.0
    active_timeout_s: float = 1800.0
    tcp_linger_s: float = 5.0
    activity_timeout_s: float = 5.0
    interim_interval_s: float = 0.0
    icmp_key: str = "type"
    ignore_vni: bool = False
    drop_duplicates_s: float = 0.0
    max_open_flows: int = 4_000_000
    community_id_seed: int = 0

    def __post_init__(self) -> None:
        for rule in self.end_rules:
            if rule not in END_RULES:
                raise InputError(f"--end_rules: {rule!r} is no rule; choose among {','.join(END_RULES)}")
        for name in ("idle_timeout_s", "active_timeout_s", "activity_timeout_s"):
            if not 1e-9 <= getattr(self, name) < 1e9:
                raise InputError(f"--{name}: {getattr(self, name):g} s; give at least a nanosecond and less than 1e9")
        for name in ("tcp_linger_s", "interim_interval_s", "drop_duplicates_s"):
            if not 0 <= getattr(self, name) < 1e9:
                raise InputError(f"--{name}: {getattr(self, name):g} s; give 0 or more, less than 1e9")
        if self.icmp_key not in ("type", "none"):
            raise InputError(f"--icmp_key: {self.icmp_key!r}; choose type or none")
        if not 0 < self.max_open_flows <= 1 << 30:
            raise InputError(f"--max_open_flows: {self.max_open_flows}; give 1 to {1 << 30}")
        if not 0 <= self.community_id_seed < 1 << 16:
            raise InputError(f"--community_id_seed: {self.community_id_seed}; give 0 to 65535")


def nanoseconds(seconds: float) -> int:
    """Seconds as whole nanoseconds."""
    return round(seconds * NS_PER_S)
