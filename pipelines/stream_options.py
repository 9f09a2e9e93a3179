"""The options of endless input."""

from argparse import ArgumentParser
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.words import comma_separated
from sources.streaming import StreamSettings
from transforms.records import InputError
from transforms.shard_drivers import TABLE_CACHE_OCTETS
from transforms.stream_line import StreamRules


class StreamOptions(PipelineOptions):
    """What `pipelines.flows` understands beside `FlowOptions` when its input is endless."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        def add(name: str, about: str, **details: Any) -> None:
            parser.add_argument(name, help=about, **details)

        def seconds(name: str, default: float, about: str) -> None:
            add(name, about, metavar="S", type=float, default=default)

        start = "Where to begin in a queue: earliest, latest, or a time as 2026-01-31T12:00:00Z. Default earliest."
        add("--start_at", start, metavar="WHERE", default="earliest")
        add("--stop_at_end", "The job ends when every stream has ended.", action="store_true")
        add(
            "--sensors",
            "Sensors that --stop_at_end and --merge_sensors wait for. Default those that were seen.",
            metavar="NAMES",
            type=comma_separated,
            default=[],
        )
        timeout = "A sensor of which the queue received nothing for so long has ended. Default 600."
        seconds("--sensor_timeout_s", 600.0, timeout)
        skew = "A block observed so long after the queue received it is from the future: rejected. Default 60."
        seconds("--max_clock_skew_s", 60.0, skew)
        lost = "On a queue without order, a missing block is lost after so long. Default 600."
        seconds("--gap_timeout_s", 600.0, lost)
        seconds("--file_max_age_s", 60.0, "Flows are in a whole file so long after they ended. Default 60.")
        add(
            "--sensor_events",
            "Folder of what is noticed about sensors, or gs:// one. Default `sensors` beside the first output.",
            metavar="DIR",
        )
        add(
            "--table_cache_bytes",
            "Memory of a worker for tables of open flows; others are made again from state. Default 2147483648.",
            metavar="N",
            type=int,
            default=TABLE_CACHE_OCTETS,
        )

    def check(self) -> None:
        """Refuses values that nothing further down would refuse with a line of its own.

        Raises:
            InputError: It names the option and the value.
        """
        for name in ("sensor_timeout_s", "file_max_age_s"):
            if not 0 < getattr(self, name) < 1e9:
                raise InputError(f"--{name}: {getattr(self, name):g} s; give more than 0")
        if self.table_cache_bytes < 0:
            raise InputError(f"--table_cache_bytes: {self.table_cache_bytes}; give 0 or more")

    def settings(self, max_out_of_orderness_s: float) -> StreamSettings:
        """How queues are read."""
        sensors = tuple(self.sensors)
        return StreamSettings(self.start_at, self.stop_at_end, sensors, max_out_of_orderness_s, self.sensor_timeout_s)

    def rules(self, max_out_of_orderness_s: float) -> StreamRules:
        """How shards follow them."""
        return StreamRules(max_out_of_orderness_s, self.max_clock_skew_s, self.gap_timeout_s, tuple(self.sensors))
