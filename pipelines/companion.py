"""Becomes a server that a job starts beside itself: `python companion.py PARENT COMMAND...`, PARENT a process id.

The server ends with its parent, however that ends (on Linux); and the terminal's Ctrl-C does not reach it: the parent
hears that, and ends it when there is nothing left to do. The command keeps the process id.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: str, *command: str) -> None:
    """Leaves the parent's session, ties itself to the parent's life, and becomes the command."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == int(parent):  # else it ended before it could be followed
        os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
