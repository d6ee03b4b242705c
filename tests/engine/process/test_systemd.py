"""The notifications to a service manager, on the test's own socket: readiness, signs of life while all is well, the end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlpx.engine.process import systemd
from rlpx.engine.process.systemd import Notifier

PID = 4711


class Heard:
    """The service manager's end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def take(self) -> list[str]:
        """The notifications since the last call."""
        taken: list[str] = []
        while True:
            try:
                taken.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return taken

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def heard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Heard]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@rlpx-test-{os.getpid()}"
    listener = Heard(address)
    yield listener
    listener.close()


class Engine:
    """The engine that the notifications are about."""

    is_healthy = True
    summary = "1 active session"


def notifier_for(heard: Heard, **variables: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": heard.address, **variables}, PID)


async def test_readiness_and_the_end_are_told_once(heard: Heard) -> None:
    notifier = notifier_for(heard)
    notifier.ready(Engine(), asyncio.get_running_loop())
    notifier.stopping()
    notifier.close()
    assert heard.take() == ["READY=1", "STATUS=1 active session", "STOPPING=1\nSTATUS=saying goodbye to every peer"]


async def test_signs_of_life_come_while_the_service_is_healthy_and_not_else(heard: Heard) -> None:
    notifier = notifier_for(heard, WATCHDOG_USEC="20000", WATCHDOG_PID=str(PID))
    assert notifier.watchdog_seconds == pytest.approx(0.01)
    engine = Engine()

    async def beats(count: int) -> None:
        """Wait until this many notifications have come, however slow the machine is."""
        told = 0
        while told < count:
            await asyncio.sleep(0.01)
            told += heard.take().count("WATCHDOG=1")

    notifier.ready(engine, asyncio.get_running_loop())
    await beats(3)
    engine.is_healthy = False
    heard.take()
    await asyncio.sleep(0.1)
    assert heard.take() == []
    engine.is_healthy = True
    await beats(2)
    notifier.stopping()
    heard.take()
    await asyncio.sleep(0.05)
    assert heard.take() == []
    notifier.close()


async def test_the_status_is_told_where_it_changed(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "STATUS_SECONDS", 0.01)
    notifier = notifier_for(heard)
    engine = Engine()
    notifier.ready(engine, asyncio.get_running_loop())
    await asyncio.sleep(0.1)
    engine.summary = "2 active sessions"
    told: list[str] = []
    while "STATUS=2 active sessions" not in told:
        await asyncio.sleep(0.01)
        told += heard.take()
    notifier.close()
    assert told == ["READY=1", "STATUS=1 active session", "STATUS=2 active sessions"]


def test_a_reload_has_a_beginning_and_an_end(heard: Heard) -> None:
    notifier = notifier_for(heard)
    notifier.reloading()
    notifier.reloaded()
    notifier.close()
    begun, ended = heard.take()
    assert begun.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert ended == "READY=1"


def test_the_reason_of_a_start_that_failed_is_its_status(heard: Heard) -> None:
    notifier = notifier_for(heard)
    notifier.failed("listen: 192.0.2.1:30303: \udcff is no address")
    notifier.close()
    assert heard.take() == ["STATUS=listen: 192.0.2.1:30303: \\udcff is no address"]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "never"},
        {"WATCHDOG_USEC": "0", "WATCHDOG_PID": str(PID)},
    ],
)
def test_who_waits_for_no_sign_of_life_of_ours_gets_none(heard: Heard, variables: dict[str, str]) -> None:
    notifier = notifier_for(heard, **variables)
    assert notifier.watchdog_seconds == 0
    notifier.close()


def test_children_do_not_answer_for_us(heard: Heard) -> None:
    environment = {"NOTIFY_SOCKET": heard.address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2", "HOME": "/"}
    Notifier(environment, PID).close()
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:9999", "/nobody/there", "@nobody-there", "/" + "x" * 200])
async def test_where_nobody_listens_nothing_happens(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address}, PID)
    notifier.ready(Engine(), asyncio.get_running_loop())
    notifier.reloading()
    notifier.stopping()
    notifier.close()
    notifier.failed("too late")


def test_a_service_manager_that_reads_nothing_holds_nobody_up(heard: Heard) -> None:
    notifier = notifier_for(heard)
    for _ in range(10_000):
        notifier.reloaded()
    notifier.close()
    assert heard.take()
