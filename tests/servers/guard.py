"""Runs a server that ends with those who use it: `guard.py LOCK_FILE COMMAND...`, in a session of its own.

Whoever uses the server holds a shared lock (flock) on the lock file, which the kernel lets go when that process ends,
however it ends. A watcher beside the server asks for the lock for itself, and so gets it when the last user is gone;
then it kills the server and all that the server started. The command replaces this process and keeps its process id.
"""

import fcntl
import os
import signal
import sys


def main(lock_file: str, *command: str) -> None:
    """Forks the watcher, then becomes the server, in the folder of the lock file."""
    os.chdir(os.path.dirname(lock_file))
    if os.fork() == 0:
        descriptor = os.open(lock_file, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.killpg(0, signal.SIGKILL)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
