"""Where flows and rejects go. The module's name is the URL scheme.

Importing this sets up what is shown of logging, of warnings, and of Ctrl-C.
"""

import signal
import sys
from types import FrameType


def _stop(number: int, _: FrameType | None) -> None:
    """Ctrl-C while modules are being loaded is one line, too; an exception might become another one on its way."""
    print("flowbeam: stopped", file=sys.stderr)
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


# first of all, as what is imported next takes a while; and only where a command is being loaded
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _stop)


def _leave_out_notices() -> None:
    """Drops what Beam logs when it is imported without its Google Cloud extras, or with one library of Google's."""
    import logging
    import warnings

    def is_worth_it(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(("apitools not found", "Failed to import GCSFileSystem"))

    for name in (None, "apache_beam.io.filesystems"):
        logging.getLogger(name).addFilter(is_worth_it)
    # Google's libraries count down to the end of each Python, at every start of every command.
    warnings.filterwarnings("ignore", "You are using a (non-supported )?Python version", FutureWarning)


_leave_out_notices()
