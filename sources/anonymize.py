"""Addresses that tell nobody's name: prefix-preserving anonymisation with a secret key, Crypto-PAn.

Two addresses that share their first n bits share the first n bits of their pseudonyms, and no more, so subnets stay
visible as such (Xu, Fan, Ammar and Moon, "Prefix-Preserving IP Address Anonymization", ICNP 2002). Whoever has the key
can undo it; sensors with the same key give a host the same pseudonym. The libraries that exist take one address at a
time in Python; here AES runs over all bits of all new addresses of a batch in one call, and known ones are looked up.

IPv4 takes 32 bits, as the authors' program does, IPv6 all 128, as those that came after it do.
"""

import hashlib
import os
from typing import Any

import numpy as np

from sources.rows import PLAIN
from transforms.kernel import kernel
from transforms.records import TUNNEL_NONE, InputError

KEY_OCTETS = 32

MAC_MODES = ("zero", "hash", "keep")
"""What becomes of MAC addresses: 0; a pseudonym that is locally administered, and group bits stay; or nothing."""

_ENTRY = np.dtype([("hi", "u8"), ("lo", "u8"), ("to_hi", "u8"), ("to_lo", "u8"), ("version", "u1")], align=True)
_ENTRIES = 1 << 17
_MOST_USED = _ENTRIES // 2
_NEW_AT_ONCE = 1 << 10
_GROUP_BIT, _LOCAL_BIT = np.uint64(1 << 40), np.uint64(1 << 41)
_MAC_BITS = np.uint64((1 << 48) - 1)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def read_key(path: str) -> bytes:
    """The key in a file: 32 octets, or as many in hexadecimal; raises `InputError` if it holds something else."""
    try:
        with open(path, "rb") as file:
            octets = file.read(1024)
    except OSError as error:
        raise InputError(f"--anonymize: the key file {path} cannot be read: {error.strerror}") from error
    if len(octets) == KEY_OCTETS:
        return octets
    try:
        key = bytes.fromhex(octets.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_OCTETS:
        raise InputError(
            f"--anonymize: {path} is no key: it has to hold {KEY_OCTETS} octets, or {2 * KEY_OCTETS} hexadecimal "
            f"digits; `openssl rand -hex {KEY_OCTETS} > {path}` makes one"
        )
    return key


def refuse_payloads(payload_octets: int) -> None:
    """Raises `InputError` if payload prefixes are to be kept: they may hold addresses and names."""
    if payload_octets:
        raise InputError("--anonymize: payload may hold addresses; leave --payload_octets out")


class Anonymizer:
    """Replaces what names hosts in packets: addresses, outer ones too, MACs, and the hash of headers.

    Equal packets stay equal: `headers_hash` becomes a keyed hash of what it was, so that packets which two sensors with
    the same key captured are still found to be the same.
    """

    def __init__(self, key: bytes, macs: str = "zero") -> None:
        """Makes an empty table of pseudonyms.

        Args:
            key: 32 octets, as `read_key` gives them.
            macs: One of `MAC_MODES`.

        Raises:
            InputError: The mode is unknown, or the library for AES is missing.
        """
        if len(key) != KEY_OCTETS:
            raise ValueError(f"a key has {KEY_OCTETS} octets, not {len(key)}")
        if macs not in MAC_MODES:
            raise InputError(f"--anonymize_macs: unknown mode {macs!r}; choose of {', '.join(MAC_MODES)}")
        self._macs = macs
        self._cipher = _aes(key[:16])
        self._mac_cipher = _aes(hashlib.blake2b(key, digest_size=16, person=b"flowbeam-mac").digest())
        self._hash_cipher = _aes(hashlib.blake2b(key, digest_size=16, person=b"flowbeam-headers").digest())
        self._pad = np.frombuffer(_encrypted(self._cipher, np.frombuffer(key[16:], ">u8")), ">u8").astype(np.uint64)
        self._table = np.zeros(_ENTRIES, _ENTRY)
        self._seed = np.uint64(int.from_bytes(os.urandom(8), "little"))
        self._used = 0

    def anonymized(self, packets: np.ndarray) -> np.ndarray:
        """The same `PACKET[n]` with pseudonyms; the rows given stay as they are.

        Raises:
            ValueError: A packet has a payload prefix.
        """
        if packets["payload_captured"].any():
            raise ValueError("packets with payload prefixes cannot be anonymised")
        packets = packets.view(PLAIN).copy().view(packets.dtype)
        self._replace(packets["src_hi"], packets["src_lo"], packets["ip_version"])
        self._replace(packets["dst_hi"], packets["dst_lo"], packets["ip_version"])
        tunnelled = packets["tunnel"] != TUNNEL_NONE
        if tunnelled.any():
            for side in ("outer_src", "outer_dst"):
                hi, lo = packets[f"{side}_hi"], packets[f"{side}_lo"]
                mapped = (hi == 0) & (lo >> np.uint64(32) == np.uint64(0xFFFF))
                self._replace(hi, lo, np.where(tunnelled, np.where(mapped, 4, 6), 0).astype(np.uint8))
        for side in ("src_mac", "dst_mac"):
            packets[side] = self._mac_pseudonyms(packets[side])
        packets["headers_hash"] = self._rehashed(packets["headers_hash"])
        return packets

    def _replace(self, hi: np.ndarray, lo: np.ndarray, version: np.ndarray) -> None:
        """Replaces addresses in place, those of which `version` is not 0."""
        places, new = np.empty(len(hi), np.int32), np.empty(_NEW_AT_ONCE, np.int32)
        begin = 0
        while begin < len(hi):
            if self._used > _MOST_USED:
                self._table[:] = 0
                self._used = 0
            stop, count = _enter(self._table, self._seed, hi, lo, version, begin, places, new)
            self._used += count
            if count:
                self._fill(new[:count])
            _write_pseudonyms(self._table, places, begin, stop, hi, lo)
            begin = stop

    def _fill(self, new: np.ndarray) -> None:
        """Gives entries of the table their pseudonyms: Crypto-PAn of their addresses."""
        added = self._table[new]
        hi, lo = added["hi"], added["lo"]
        four = added["version"] == 4
        flips, _ = self._flips(lo[four] << np.uint64(32), np.zeros(np.count_nonzero(four), np.uint64), 32)
        flip_hi, flip_lo = self._flips(hi[~four], lo[~four], 128)
        lo[four] ^= flips >> np.uint64(32)
        hi[~four] ^= flip_hi
        lo[~four] ^= flip_lo
        self._table["to_hi"][new], self._table["to_lo"][new] = hi, lo

    def _flips(self, hi: np.ndarray, lo: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
        """Which bits of addresses that begin at the highest bit of `hi` are flipped: bit n by AES of the n before."""
        blocks = np.empty((len(hi), bits, 2), np.uint64)
        _write_prefixes(hi, lo, self._pad[0], self._pad[1], blocks)
        drawn = np.frombuffer(_encrypted(self._cipher, blocks.astype(">u8")), np.uint8)
        flips = np.empty((len(hi), 2), np.uint64)
        _gather_first_bits(drawn, bits, flips)
        return flips[:, 0], flips[:, 1]

    def _mac_pseudonyms(self, macs: np.ndarray) -> np.ndarray:
        if self._macs == "keep":
            return macs
        if self._macs == "zero":
            return np.zeros_like(macs)
        unique, where = np.unique(macs, return_inverse=True)
        drawn = _first_halves(self._mac_cipher, unique) & _MAC_BITS & ~_GROUP_BIT
        drawn = np.where(unique == 0, np.uint64(0), drawn | _LOCAL_BIT | (unique & _GROUP_BIT))
        return drawn[where]

    def _rehashed(self, hashes: np.ndarray) -> np.ndarray:
        if not hashes.any():
            return hashes
        drawn = np.maximum(_first_halves(self._hash_cipher, hashes), np.uint64(1))
        return np.where(hashes == 0, np.uint64(0), drawn)


def _aes(key: bytes) -> Any:
    """AES-128 of blocks on their own."""
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError as error:
        raise InputError("--anonymize needs cryptography: `pip install 'flowbeam[sensor]'`") from error
    return Cipher(algorithms.AES(key), modes.ECB())


def _encrypted(cipher: Any, blocks: np.ndarray) -> bytes:
    octets: bytes = cipher.encryptor().update(blocks.tobytes())
    return octets


def _first_halves(cipher: Any, numbers: np.ndarray) -> np.ndarray:
    """The first eight octets of each number's encryption."""
    blocks = np.zeros((len(numbers), 2), ">u8")
    blocks[:, 0] = numbers
    return np.frombuffer(_encrypted(cipher, blocks), ">u8")[::2].astype(np.uint64)


@kernel
def _place(table, seed, hi, lo, version):
    """Where an address is in the table, or would be: the free entry that ends the search."""
    number = (hi ^ seed) * _MULTIPLIER
    number = (number ^ (number >> np.uint64(29)) ^ lo ^ np.uint64(version)) * _MULTIPLIER
    at = np.int64((number >> np.uint64(32)) & np.uint64(len(table) - 1))
    while table[at].version != 0 and (table[at].version != version or table[at].hi != hi or table[at].lo != lo):
        at = (at + 1) & (len(table) - 1)
    return at


@kernel
def _enter(table, seed, hi, lo, version, begin, places, new):
    """Finds the entries of addresses from `begin` on, and adds those that are missing, without pseudonyms yet.

    Returns:
        Where it stopped, because `new` was full or the addresses were at their end, and how many entries are new.
    """
    count = 0
    for i in range(begin, len(hi)):
        if version[i] == 0:
            places[i] = -1
            continue
        if count == len(new):
            return i, count
        at = _place(table, seed, hi[i], lo[i], version[i])
        entry = table[at]
        if entry.version == 0:
            entry.hi, entry.lo, entry.version = hi[i], lo[i], version[i]
            new[count] = at
            count += 1
        places[i] = at
    return len(hi), count


@kernel
def _write_pseudonyms(table, places, begin, stop, hi, lo):
    for i in range(begin, stop):
        if places[i] >= 0:
            hi[i], lo[i] = table[places[i]].to_hi, table[places[i]].to_lo


@kernel
def _write_prefixes(hi, lo, pad_hi, pad_lo, blocks):
    """What AES is to see for each bit: the address's bits before it, and the pad's from it on."""
    for i in range(len(hi)):
        for bit in range(blocks.shape[1]):
            if bit < 64:
                kept = ~np.uint64(0) >> np.uint64(bit) if bit else ~np.uint64(0)
                blocks[i, bit, 0] = (hi[i] & ~kept) | (pad_hi & kept)
                blocks[i, bit, 1] = pad_lo
            else:
                kept = ~np.uint64(0) >> np.uint64(bit - 64)
                blocks[i, bit, 0] = hi[i]
                blocks[i, bit, 1] = (lo[i] & ~kept) | (pad_lo & kept)


@kernel
def _gather_first_bits(drawn, bits, flips):
    """The first bit of each block of 16 octets, `bits` of them for an address, from the highest on."""
    for i in range(len(flips)):
        high, low = np.uint64(0), np.uint64(0)
        for bit in range(bits):
            first = np.uint64(drawn[(i * bits + bit) * 16] >> 7)
            if bit < 64:
                high |= first << np.uint64(63 - bit)
            else:
                low |= first << np.uint64(127 - bit)
        flips[i, 0], flips[i, 1] = high, low
