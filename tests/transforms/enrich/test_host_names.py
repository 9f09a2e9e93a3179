"""Reverse DNS: bounded in time, questions and memory; a resolver that hangs or fails holds up nothing."""

import socket
import threading
import time

import pytest

from transforms.enrich import host_names
from transforms.enrich.host_names import HostNames


class Resolver:
    """Knows h<address>.example; some it does not know, some it answers once it may."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.asked: list[str] = []

    def __call__(self, address: str) -> str:
        self.asked.append(address)
        if address.startswith("slow"):
            assert self.may_answer.wait(30)
        if address.startswith("none"):
            raise OSError("no name")
        if address.startswith("failed") and not self.may_answer.is_set():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if address.startswith("odd"):
            raise UnicodeError("no text")
        return f"{address}.example"


@pytest.fixture
def resolver():
    made = Resolver()
    yield made
    made.may_answer.set()


def test_names_are_asked_once_and_kept(resolver):
    names = HostNames(4, 30, resolver)
    for _ in range(3):
        found = names.find(["a", "none", "odd", None, "b"])
        assert found == (["a.example", None, None, None, "b.example"], [False] * 5)
    assert sorted(resolver.asked) == ["a", "b", "none", "odd"]


def test_a_slow_answer_is_late_and_there_for_a_later_batch(resolver):
    """A batch waits so long for what it asks for, and not at all for what another asked for."""
    names = HostNames(2, 0.05, resolver)
    assert names.find(["slow", "a"]) == ([None, "a.example"], [True, False])
    start = time.monotonic()
    patient = HostNames(1, 30, resolver)
    patient._asked.add("slow")
    assert patient.find(["slow"]) == ([None], [True])
    assert time.monotonic() - start < 20
    resolver.may_answer.set()
    until = time.monotonic() + 30
    while names.find(["slow"])[1] == [True]:
        assert time.monotonic() < until
    assert names.find(["slow"]) == (["slow.example"], [False])
    assert resolver.asked.count("slow") == 1


def test_what_the_resolver_could_not_answer_is_late_and_asked_again_a_minute_later(resolver, monkeypatch):
    """While it is away nobody is told that an address has no name, nor is it asked over and over."""
    names = HostNames(1, 30, resolver)
    for _ in range(3):
        assert names.find(["failed", "a"]) == ([None, "a.example"], [True, False])
    assert resolver.asked.count("failed") == 1
    resolver.may_answer.set()
    monkeypatch.setattr(host_names, "ASKED_AGAIN_S", -1.0)
    assert names.find(["failed"]) == (["failed.example"], [False])


def test_what_failed_is_remembered_within_a_bound(resolver):
    names = HostNames(1, 30, resolver, kept=10)
    for first in range(0, 100, 5):
        names.find([f"failed{number}" for number in range(first, first + 5)])
        assert len(names._failed) <= 10 + 5


def test_nobody_waits_for_a_resolver_that_is_silent(resolver):
    """Once a batch has waited in vain, until there is an answer again."""
    names = HostNames(1, 0.01, resolver)
    assert names.find(["slow"]) == ([None], [True])
    names._wait_s = 60.0
    start = time.monotonic()
    assert names.find(["a"]) == ([None], [True])
    assert time.monotonic() - start < 30
    resolver.may_answer.set()
    until = time.monotonic() + 30
    while names.find(["a"])[1] == [True]:
        assert time.monotonic() < until
    assert names.find(["b"]) == (["b.example"], [False])


def test_questions_that_wait_are_bounded(resolver, monkeypatch):
    monkeypatch.setattr(host_names, "WAITING", 5)
    names = HostNames(1, 0.01, resolver)
    _, late = names.find(["slow", *map(str, range(100))])
    assert late.count(True) == 101
    assert len(names._asked) <= 6


def test_answers_are_kept_within_a_bound(resolver):
    """Those asked for often stay, and so do names."""
    names = HostNames(4, 30, resolver, kept=10)
    for first in range(0, 100, 5):
        batch = ["often", *map(str, range(first, first + 5))]
        assert names.find(batch)[0] == [f"{address}.example" for address in batch]
        assert len(names._young) + len(names._old) <= 2 * (10 + 6 + 1)
    assert resolver.asked.count("often") <= 3


def test_answers_are_asked_for_again_in_the_end(resolver, monkeypatch):
    names = HostNames(1, 30, resolver)
    names.find(["a"])
    monkeypatch.setattr(host_names, "KEPT_S", -1.0)
    assert names.find(["a"]) == (["a.example"], [False])
    assert resolver.asked == ["a", "a"]


def test_the_system_s_resolver_knows_this_machine():
    """Whatever it is called here."""
    (name,), (late,) = HostNames(1, 30).find(["127.0.0.1"])
    assert not late
    assert name is None or name
