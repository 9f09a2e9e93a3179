"""Queues as endless Beam inputs: a module for each scheme, named like it, with `open_input(url, settings)`.

Modules with an underscore in their names are no schemes, as in `queues`.

`open_input` checks what can be checked before the pipeline runs, and returns a PTransform from the pipeline to a
PCollection of `transforms.records.Delivery`.
"""

import importlib
import pkgutil
from dataclasses import dataclass

import apache_beam as beam

from transforms.records import InputError
from transforms.times import time_ns


@dataclass(eq=False)
class StreamSettings:
    """How an endless input is read.

    Attributes:
        start_at: `earliest`, `latest`, or a time as `2026-01-31T12:00:00Z`.
        stop_at_end: Reading ends when every stream has ended.
        sensors: Names of the sensors that must have ended then; none: those that were seen.
        max_out_of_orderness_s: How far back in observed time blocks of a stream may reach in the queue's order.
        sensor_timeout_s: A stream that is silent for so long of the queue's receive time has ended.
    """

    start_at: str = "earliest"
    stop_at_end: bool = False
    sensors: tuple[str, ...] = ()
    max_out_of_orderness_s: float = 2.0
    sensor_timeout_s: float = 600.0


def open_input(url: str, settings: StreamSettings) -> beam.PTransform:
    """The transform that reads a queue such as `kafka://broker/topic` for ever.

    Raises:
        InputError: There is no such queue, or it cannot be read.
    """
    scheme = url.partition(":")[0]
    schemes = sorted(module.name for module in pkgutil.iter_modules(__path__) if "_" not in module.name)
    if scheme not in schemes:
        raise InputError(f"{url}: no endless input; name a queue: {', '.join(f'{name}:' for name in schemes)}")
    transform: beam.PTransform = importlib.import_module(f"sources.streaming.{scheme}").open_input(url, settings)
    return transform


def start_time_ns(start_at: str) -> int | None:
    """The time that `--start_at` names, ns since the Unix epoch, UTC unless it says otherwise; None if it is a word.

    Raises:
        InputError: It is neither `earliest`, `latest` nor a time.
    """
    if start_at in ("earliest", "latest"):
        return None
    try:
        return time_ns(start_at)
    except ValueError as error:
        example = "2026-01-31T12:00:00Z"
        raise InputError(f"--start_at {start_at}: neither earliest, latest nor a time such as {example}") from error
