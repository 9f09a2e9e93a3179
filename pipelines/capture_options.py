"""The options of `pipelines.capture`, and the settings that they make."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

import queues
from pipelines.config import parsed
from pipelines.words import comma_separated
from sinks.command import OneLineParser
from sources.anonymize import MAC_MODES, Anonymizer, read_key, refuse_payloads
from sources.blocks import BlockSettings
from sources.bpf import WHOLE_PACKETS, PacketFilter
from sources.captures import ReadSettings
from sources.headers import TUNNEL_KINDS, HeaderSettings
from sources.interface import InterfaceSettings
from sources.journal import BufferSettings
from sources.packet_ring import FANOUT_MODES
from sources.replay import ReplaySettings
from sources.sampling import parse_share
from sources.sensor import SensorSettings
from sources.sensor_folder import default_folder
from transforms.records import InputError

INTERFACE, REPLAY, FILES = "interface", "replay", "files"

READ_PACKETS = 16384
"""Captures are read in pieces of as many packets, before they are split."""

_ONLY_FOR = {
    "speed": (REPLAY,),
    "rate": (REPLAY,),
    "shift_times": (REPLAY,),
    "loop": (REPLAY,),
    "rings": (INTERFACE,),
    "fanout": (INTERFACE,),
    "ring_octets": (INTERFACE,),
    "promiscuous": (INTERFACE,),
    "sensor_from": (FILES,),
    "buffer_octets": (INTERFACE, REPLAY),
    "block_max_age_ms": (INTERFACE, REPLAY),
    "max_out_of_orderness_s": (INTERFACE, REPLAY),
}
"""Options that mean nothing for other inputs, and are refused there."""


def parse_options(arguments: Sequence[str]) -> Namespace:
    """The options, with `kind`, what the input is, and `names`, the inputs without their scheme.

    Raises:
        InputError: An option is unknown or its value is wrong.
    """
    parser = OneLineParser(
        "python -m pipelines.capture",
        description="A sensor: puts packets of an interface, or of captures, on a queue.",
        allow_abbrev=False,
    )
    _add_input(parser)
    _add_packets(parser)
    _add_blocks(parser)
    _add_process(parser)
    options = parsed(parser, arguments)
    options.kind, options.names = _kind_of(options.input)
    for name, kinds in _ONLY_FOR.items():
        if getattr(options, name) is not None and options.kind not in kinds:
            inputs = " or ".join(f"{kind}:…" if kind != FILES else "files" for kind in kinds)
            raise InputError(f"--{name}: only for --input {inputs}")
    return options


def _add_input(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("what is captured").add_argument
    add(
        "--input",
        action="append",
        required=True,
        help="interface:NAME; replay:FILE; or capture file, folder, glob, - for standard input. Files are repeatable.",
    )
    add("--sensor", default="local", help="Name of the sensor. Default local.")
    add(
        "--sensor_from",
        choices=("all", "file", "folder"),
        help="Of files: one sensor for all, or one for each file or folder. Default all.",
    )
    add("--filter", help="Capture only what this expression of pcap-filter(7) accepts, such as 'tcp port 443'.")
    add("--rings", type=int, help="Packet rings of the interface that share its packets. Default 1.")
    add("--fanout", choices=FANOUT_MODES, help="How several rings share them. Default hash.")
    add("--ring_octets", type=int, help="Memory of each ring. Default 67108864.")
    add(
        "--no_promiscuous",
        dest="promiscuous",
        action="store_false",
        default=None,
        help="Leave out what the interface sees and is meant for others.",
    )
    add("--speed", help="Replay so many times as fast as captured; max: as fast as possible. Default 1.")
    add("--rate", type=float, help="Replay so many packets a second instead.")
    add("--shift_times", action="store_true", default=None, help="Replay as if the first packet were captured now.")
    add("--loop", type=int, nargs="?", const=0, help="Replay so often, without a number for ever. Default 1.")


def _add_packets(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("what is kept of packets").add_argument
    add("--snaplen", type=int, default=WHOLE_PACKETS, help="Octets of each packet to look at. Default %(default)s.")
    add("--payload_octets", type=int, default=0, help="Octets of each packet's payload to carry. Default 0.")
    add(
        "--decapsulate",
        type=comma_separated,
        default=list(TUNNEL_KINDS),
        help=f"Tunnels to open, or none. Default {','.join(TUNNEL_KINDS)}.",
    )
    add("--sample", help="Keep one flow of N, both its directions: 1/N.")
    add("--anonymize", metavar="KEYFILE", help="Replace addresses, prefixes preserved, with the key in this file.")
    add("--anonymize_macs", choices=MAC_MODES, default="zero", help="What --anonymize makes of MACs. Default zero.")


def _add_blocks(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("where it goes").add_argument
    add("--queue", required=True, help=f"Where blocks go: {', '.join(f'{scheme}:…' for scheme in queues.schemes())}.")
    add("--block_packets", type=int, default=4096, help="The most packets of a block. Default 4096.")
    add("--block_octets", type=int, default=900_000, help="The most octets of a block. Default 900000.")
    add("--block_max_age_ms", type=float, help="The longest that a packet waits for its block. Default 200.")
    add("--buffer_dir", help="Folder for blocks that the queue does not have yet. Default the user's state folder.")
    add("--buffer_octets", type=int, help="Room for them on the disk. Default 1073741824.")
    add(
        "--max_out_of_orderness_s",
        type=float,
        help="A clock that goes back by more makes a new epoch; as the jobs' option. Default 2.",
    )


def _add_process(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("the process").add_argument
    add("--metrics_port", type=int, help="Answer Prometheus on this port.")
    add("--user", help="Become this user once the interface is open. Default nobody, if it is root who captures.")
    add("--stop_timeout_s", type=float, default=10.0, help="How long a stop waits for the queue. Default 10.")
    add("--temp_dir", help="Folder for what must be sorted on disk. Default the system's.")
    add("--quiet", action="store_true", help="No progress bar, no summary.")


def _kind_of(inputs: Sequence[str]) -> tuple[str, list[str]]:
    kinds = set()
    names = []
    for name in inputs:
        scheme, colon, rest = name.partition(":")
        kind = scheme if colon and scheme in (INTERFACE, REPLAY) else FILES
        kinds.add(kind)
        names.append(name if kind == FILES else rest)
    if len(kinds) > 1:
        raise InputError(f"--input: {', '.join(inputs)} are of different kinds; start a sensor for each")
    if kinds == {INTERFACE} and len(names) > 1:
        raise InputError(f"--input: {', '.join(inputs)}: a sensor captures from one interface; start one for each")
    if "" in names:
        raise InputError(f"--input: {inputs[names.index('')]} names nothing; write interface:NAME or replay:FILE")
    return kinds.pop(), names


def header_settings(options: Namespace) -> HeaderSettings:
    """What of packets is kept."""
    kinds = tuple(options.decapsulate)
    if options.anonymize is not None:
        refuse_payloads(options.payload_octets)
    return HeaderSettings(() if kinds == ("none",) else kinds, options.payload_octets, headers_hash=True)


def interface_settings(options: Namespace) -> InterfaceSettings:
    """How an interface is captured from."""
    given = {name: getattr(options, name) for name in ("rings", "fanout", "ring_octets", "promiscuous")}
    return InterfaceSettings(
        options.names[0],
        filter=options.filter or "",
        snaplen=options.snaplen,
        headers=header_settings(options),
        **{name: value for name, value in given.items() if value is not None},
    )


def replay_settings(options: Namespace) -> ReplaySettings:
    """How captures are read, and at which pace."""
    packet_filter = PacketFilter(options.filter) if options.filter else None
    read = ReadSettings(header_settings(options), READ_PACKETS, options.temp_dir, 0, packet_filter, options.snaplen)
    if options.kind == FILES:
        return ReplaySettings(read)
    loop = 1 if options.loop is None else options.loop
    return ReplaySettings(read, _speed_of(options), options.rate or 0.0, bool(options.shift_times), loop)


def _speed_of(options: Namespace) -> float:
    if options.rate is not None:
        if options.speed is not None:
            raise InputError("--rate: sets the pace, and so does --speed; leave one of them out")
        if not options.rate > 0:
            raise InputError(f"--rate: {options.rate:g} is not a positive number")
        return 0.0
    if options.speed in (None, "max"):
        return 1.0 if options.speed is None else 0.0
    try:
        return float(options.speed)
    except ValueError as error:
        raise InputError(f"--speed: {options.speed} is neither a number nor max") from error


def sensor_settings(options: Namespace) -> SensorSettings:
    """How the sensor works."""
    files = options.kind == FILES
    age_ms = 200.0 if options.block_max_age_ms is None else options.block_max_age_ms
    bound_s = 2.0 if options.max_out_of_orderness_s is None else options.max_out_of_orderness_s
    anonymizer = None
    if options.anonymize is not None:
        anonymizer = Anonymizer(read_key(options.anonymize), options.anonymize_macs)
    return SensorSettings(
        BlockSettings(options.block_packets, options.block_octets, None if files else age_ms / 1000),
        None if files else 1.0,
        bound_s,
        waits=options.kind != INTERFACE and (files or (options.rate is None and _speed_of(options) == 0)),
        one_of=1 if options.sample is None else parse_share(options.sample),
        anonymizer=anonymizer,
    )


def buffer_folder(options: Namespace) -> Path:
    """Where sensors keep what outlives them."""
    return Path(options.buffer_dir) if options.buffer_dir else default_folder()


def buffer_settings(options: Namespace) -> BufferSettings:
    """Where blocks wait for the queue; those of files, which can be read again, in memory."""
    octets = 1 << 30 if options.buffer_octets is None else options.buffer_octets
    return BufferSettings(None if options.kind == FILES else buffer_folder(options), octets)
