"""The one list of the families of features; a new family is a file and a row here."""

from types import ModuleType

from transforms.features import (
    activity,
    bulk,
    bursts,
    counters,
    first_packets,
    flags,
    histograms,
    interarrival,
    lengths,
    rates,
    shape,
    tcp_quality,
    windows,
)

FAMILIES: tuple[ModuleType, ...] = (
    counters,
    lengths,
    interarrival,
    flags,
    windows,
    activity,
    bulk,
    rates,
    tcp_quality,
    first_packets,
    histograms,
    bursts,
    shape,
)
