"""Entry points: options and wiring, nothing else."""

import logging
import sys
from types import TracebackType


class _WithoutCloudNotice(logging.Filter):
    """Drops the one line that Beam logs when it is imported without its Google Cloud extras."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("apitools not found")


logging.getLogger().addFilter(_WithoutCloudNotice())


def _show_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Ctrl-C while modules are being imported is one line, too; anything else is shown as ever."""
    if issubclass(kind, KeyboardInterrupt):
        print("flowbeam: stopped", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _show_error
