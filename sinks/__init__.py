"""Where flows and rejects go. The module's name is the URL scheme.

Importing this sets up what is shown of logging, of warnings, and of Ctrl-C.
"""

import sys
from types import TracebackType


def _show_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Ctrl-C while modules are being imported is one line, too; anything else is shown as ever."""
    if issubclass(kind, KeyboardInterrupt):
        print("flowbeam: stopped", file=sys.stderr)
    else:
        _shown_before(kind, error, traceback)


_shown_before = sys.excepthook
sys.excepthook = _show_error  # first of all: what is imported next takes a while


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
