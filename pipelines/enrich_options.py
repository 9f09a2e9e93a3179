"""The options of what flows are enriched with."""

from argparse import ArgumentParser
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.words import comma_separated
from transforms.enrich.settings import EnrichSettings


class EnrichOptions(PipelineOptions):
    """What `pipelines.flows` understands about places, zones, threats and names."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        def add(name: str, about: str, **details: Any) -> None:
            parser.add_argument(name, help=about, **details)

        databases = (
            "MaxMind DB: City, Country, ASN, ISP or Enterprise; the first that knows an address counts; repeatable."
        )
        add("--geoip", databases, metavar="FILE", action="append", default=[])
        add("--zones", "Networks of your own: CSV or JSON lines of network, name, role, site.", metavar="FILE")
        lists = "Threat list: one indicator a line, CSV or JSON lines; or a folder of such files; repeatable."
        add("--threats", lists, metavar="FILE|DIR", action="append", default=[])
        add(
            "--threat_columns",
            "Text columns of flows that domains of threat lists are looked for in, beside host names.",
            metavar="NAMES",
            type=comma_separated,
            default=[],
        )
        add("--reverse_dns", "Host names of addresses, from the system's resolver.", action="store_true")
        waits = "The longest that a batch of flows waits for names that it asks for. Default 0.2."
        add("--reverse_dns_wait_s", waits, metavar="S", type=float, default=0.2)
        add("--reverse_dns_threads", "Questions at a time. Default 16.", metavar="N", type=int, default=16)

    def check(self) -> None:
        """Refuses values that cannot be used, and nothing that only the files tell.

        Raises:
            InputError: It names the option and the value.
        """
        settings_of(self)


def settings_of(options: EnrichOptions) -> EnrichSettings | None:
    """What the options ask for; None if they ask for nothing.

    Raises:
        InputError: A value makes no sense.
    """
    settings = EnrichSettings(
        tuple(options.geoip),
        options.zones,
        tuple(options.threats),
        options.reverse_dns,
        options.reverse_dns_threads,
        options.reverse_dns_wait_s,
        tuple(options.threat_columns),
    )
    return settings if settings.asks_for_something else None
