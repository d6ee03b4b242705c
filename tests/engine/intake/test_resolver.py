"""Host names: resolved beside the loop, in RFC 8305's order, bounded in number and time."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from rlpx.engine.intake.resolver import MAX_LOOKUPS, Resolver, by_turns


def info(host: str) -> tuple[Any, ...]:
    """The entry of `getaddrinfo` for an address."""
    if ":" in host:
        return socket.AF_INET6, socket.SOCK_STREAM, 6, "", (host, 0, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)


def test_families_take_turns_and_the_first_one_is_the_systems_choice() -> None:
    hosts = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.1"]
    assert by_turns(map(info, hosts)) == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "2001:db8::3"]
    assert by_turns([]) == []


async def test_a_name_of_this_machine_is_resolved() -> None:
    addresses = await Resolver(asyncio.get_running_loop()).addresses("localhost")
    assert addresses
    assert set(addresses) <= {"127.0.0.1", "::1"}


async def test_a_name_of_nobody_is_an_error() -> None:
    resolver = Resolver(asyncio.get_running_loop())
    with pytest.raises(socket.gaierror):
        await resolver.addresses("nobody.invalid")
    # Python's own codec refuses a label that is too long.
    with pytest.raises(OSError, match="label"):
        await resolver.addresses("a" * 64 + ".invalid")


async def test_a_lookup_that_hangs_ends_by_its_deadline_and_holds_one_of_few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = threading.Event()

    def hangs(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        may_end.wait(10)
        return [info("192.0.2.1")]

    monkeypatch.setattr("rlpx.engine.intake.resolver.LOOKUP_SECONDS", 0.05)
    monkeypatch.setattr("rlpx.engine.intake.resolver.socket.getaddrinfo", hangs)
    resolver = Resolver(asyncio.get_running_loop())
    lookups = [resolver.addresses("slow.example") for _ in range(MAX_LOOKUPS + 1)]
    results = await asyncio.gather(*lookups, return_exceptions=True)
    assert {type(result) for result in results} == {TimeoutError}
    may_end.set()
    monkeypatch.setattr("rlpx.engine.intake.resolver.LOOKUP_SECONDS", 5.0)
    assert await resolver.addresses("slow.example") == ["192.0.2.1"]
