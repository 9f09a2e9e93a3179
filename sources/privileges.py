"""Giving up rights: a sensor is root, or has CAP_NET_RAW, only until its sockets are open."""

import ctypes
import os
import pwd
import struct
import sys
from typing import NamedTuple

from transforms.kernel import cache_folder
from transforms.records import InputError

_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 38, 47
_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_NOBODY = "nobody"


class Account(NamedTuple):
    """Whom a process runs as."""

    name: str
    uid: int
    gid: int


def account_for(user: str | None, folder: str | None = None) -> Account | None:
    """Whom to become once the sockets are open; None if this process is not root, or is told to stay it.

    Args:
        user: Name of an account; None is the owner of `folder` if that is not root, else `nobody`.
        folder: What the process has to go on writing to. If it belongs to somebody else, give it to the account first.

    Raises:
        InputError: There is no such account, or this process is not root and cannot become another.
    """
    if os.geteuid() != 0:
        if user is not None and _account(user).uid != os.geteuid():
            raise InputError(f"--user {user}: only root can become another user; leave the option out")
        return None
    if user is None:
        owner = os.stat(folder).st_uid if folder is not None and os.path.exists(folder) else 0
        account = _account(_NOBODY) if owner == 0 else _owner(owner)
    else:
        account = _account(user)
    return account if account.uid else None


def _account(user: str) -> Account:
    try:
        entry = pwd.getpwnam(user)
    except KeyError as error:
        raise InputError(f"--user {user}: there is no such user; `useradd --system {user}` makes one") from error
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _owner(uid: int) -> Account:
    try:
        return _account(pwd.getpwuid(uid).pw_name)
    except KeyError:  # an owner without an entry, as containers have them
        return Account(str(uid), uid, uid)


def drop_privileges(account: Account | None) -> None:
    """Becomes `account`, and gives up every capability and the way to regain any, for good.

    What is open stays open. No program that is started later gains anything by its file either. As root this holds for
    all threads; a process that is not root loses what this thread has, so call it before others are started. Kernels
    that are compiled later are kept where the account may write.

    Args:
        account: From `account_for`; None stays who this process is. Root then stays root, as it was told to.

    Raises:
        InputError: If the system refuses.
    """
    if sys.platform != "linux":
        raise InputError("--user: rights are given up on Linux only")
    library = ctypes.CDLL(None, use_errno=True)
    if account is None and os.geteuid() == 0:
        return
    try:
        if account is not None:
            os.setgroups([])
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
        _prctl(library, _PR_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
        _clear_capabilities(library)
        _prctl(library, _PR_SET_NO_NEW_PRIVS, 1)
        cache_folder.cache_clear()
    except OSError as error:
        name = str(os.geteuid()) if account is None else account.name
        raise InputError(
            f"--user {name}: rights cannot be given up: {error.strerror}; `--user root` keeps them"
        ) from error


def _prctl(library: ctypes.CDLL, option: int, value: int) -> None:
    if library.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _clear_capabilities(library: ctypes.CDLL) -> None:
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    if library.capset(header, bytes(24)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
