"""Giving up rights, in processes of their own: what a sensor may do before and after."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from sources import privileges
from sources.privileges import account_for
from transforms.records import InputError

TOP = Path(__file__).parents[2]
NONE = "0" * 16

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
as_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may do this")

PROGRAM = """
import os, sys, threading
import numpy as np
from sources.packet_ring import open_socket
from sources.privileges import account_for, drop_privileges
from transforms.records import InputError

def rights(thread, *names):
    lines = open(f"/proc/self/task/{thread}/status").read().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return " ".join(found[name].strip().replace("\\t", ",") for name in names)

def refused(step):
    try:
        step()
    except (OSError, InputError) as error:
        return type(error).__name__
    return "allowed"

threading.Thread(target=threading.Event().wait, daemon=True).start()
sock = open_socket("lo")
"""


def run(program: str, **environment: str) -> list[str]:
    """The lines that `PROGRAM` and `program` print."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM + program],
        env={**os.environ, "PYTHONPATH": str(TOP), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


@as_root
def test_root_becomes_nobody_for_good():
    """In every thread; what was open stays open, nothing comes back."""
    lines = run(
        "drop_privileges(account_for(None))\n"
        "threads = os.listdir('/proc/self/task')\n"
        "print(len(threads) > 1, *{rights(thread, 'Uid', 'Gid', 'Groups', 'CapPrm', 'CapEff') for thread in threads})\n"
        "print(rights(threading.get_native_id(), 'NoNewPrivs'))\n"
        "print(refused(lambda: os.setuid(0)), refused(lambda: open('/etc/shadow')))\n"
        "print(refused(lambda: open_socket('lo')), refused(lambda: sock.bind(('lo', 3))))\n"
    )
    account = pwd.getpwnam("nobody")
    uids, gids = ",".join([str(account.pw_uid)] * 4), ",".join([str(account.pw_gid)] * 4)
    assert lines == [
        f"True {uids} {gids}  {NONE} {NONE}",
        "1",
        "PermissionError PermissionError",
        "InputError allowed",
    ]


@as_root
def test_the_capability_to_capture_is_enough_and_goes_too():
    """As systemd gives it to a user that is not root."""
    lines = run(
        "import ctypes, struct\n"
        "libc = ctypes.CDLL(None)\n"
        "keep_capabilities, net_raw = 8, 1 << 13\n"
        "libc.prctl(keep_capabilities, 1, 0, 0, 0)\n"
        "os.setresuid(1, 1, 1)\n"
        "libc.capset(struct.pack('Ii', 0x20080522, 0), struct.pack('6I', net_raw, net_raw, net_raw, 0, 0, 0))\n"
        "print(rights(threading.get_native_id(), 'CapPrm', 'CapEff'), refused(lambda: open_socket('lo')))\n"
        "drop_privileges(account_for(None))\n"
        "print(rights(threading.get_native_id(), 'CapInh', 'CapPrm', 'CapEff', 'CapAmb', 'NoNewPrivs'), os.geteuid())\n"
        "print(refused(lambda: open_socket('lo')))\n"
    )
    assert lines == ["0000000000002000 0000000000002000 allowed", f"{NONE} {NONE} {NONE} {NONE} 1 1", "InputError"]


@as_root
def test_kernels_are_compiled_after_all_rights_are_gone(tmp_path):
    """The cache of root is out of reach then; what was not compiled before stays in memory."""
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    lines = run(
        "from sources.frames import FRAME\n"
        "from sources.ring_blocks import release_blocks, walk_blocks\n"
        "words, halves = np.zeros(2048, np.uint32), np.zeros(4096, np.uint16)\n"
        "release_blocks(words, 0, 0, 4096)\n"
        "drop_privileges(account_for(None))\n"
        "print(walk_blocks(words, halves, 0, 4096, 1, np.zeros(9, FRAME), np.zeros(9, np.uint32)))\n",
        XDG_CACHE_HOME=str(cache),
    )
    assert lines == ["(0, 0, False, True)"]


@as_root
def test_whom_root_becomes(tmp_path):
    """Who is named; else the owner of the folder to write to; else nobody. Root is kept by name only."""
    assert account_for("root") is None
    assert account_for("daemon").name == "daemon"
    assert account_for(None).name == "nobody"
    assert account_for(None, str(tmp_path)).name == "nobody"
    assert account_for(None, str(tmp_path / "none")).name == "nobody"
    os.chown(tmp_path, pwd.getpwnam("daemon").pw_uid, -1)
    assert account_for(None, str(tmp_path)).name == "daemon"
    os.chown(tmp_path, 54321, -1)
    assert account_for(None, str(tmp_path)) == ("54321", 54321, 54321)


@as_root
def test_an_unknown_user_is_one_line():
    with pytest.raises(InputError, match=r"^--user nosuchuser: there is no such user; `useradd --system nosuchuser`"):
        account_for("nosuchuser")


def test_only_root_becomes_another(monkeypatch):
    monkeypatch.setattr(privileges.os, "geteuid", lambda: 54321)
    assert account_for(None) is None
    with pytest.raises(InputError, match=r"^--user daemon: only root can become another user; leave the option out$"):
        account_for("daemon")


@as_user
def test_who_is_not_root_stays_who_it_is():
    assert account_for(pwd.getpwuid(os.geteuid()).pw_name) is None
