"""The effects of signals on a program. They go to the main thread: other threads of a test process do not block them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest
import structlog.testing

from rlpx.engine.process.signals import HANDLED, Paced, Signals
from tests.engine.fake_worker import until


@pytest.fixture(autouse=True)
def blocked() -> Iterator[None]:
    """Block signals, as at the start of a program; afterwards, take away those that are left."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    yield
    while signal.sigpending() & HANDLED:
        signal.sigwait(HANDLED)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Program:
    """Records the calls that its signals make."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.signals = Signals(
            stop=lambda: self.calls.append("stop"),
            kill=lambda: self.calls.append("kill"),
            reload=lambda: self.calls.append("reload"),
            reopen=lambda: self.calls.append("reopen"),
            restart=lambda: self.calls.append("restart"),
        )

    async def gets(self, number: int, calls: list[str]) -> None:
        """Send a signal, and check that these calls have been made."""
        signal.raise_signal(number)
        await until(lambda: self.calls == calls)


@pytest.mark.loop("asyncio")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_stops_the_second_kills_and_the_third_does_nothing(number: int) -> None:
    program = Program()
    with structlog.testing.capture_logs() as logged, program.signals as signals:
        states = [signals.is_stopping]
        await program.gets(number, ["stop"])
        states.append(signals.is_stopping)
        await program.gets(number, ["stop", "kill"])
        await program.gets(number, ["stop", "kill"])
        await program.gets(signal.SIGHUP, ["stop", "kill", "reload"])
        await program.gets(signal.SIGUSR2, ["stop", "kill", "reload", "restart"])
        await program.gets(signal.SIGUSR1, ["stop", "kill", "reload", "restart", "reopen"])
    assert states == [False, True]
    assert [line["event"] for line in logged] == ["second signal: ending without goodbyes"]


@pytest.mark.loop("asyncio")
async def test_a_signal_that_came_early_is_delivered_and_one_that_comes_late_waits() -> None:
    program = Program()
    signal.raise_signal(signal.SIGHUP)
    await asyncio.sleep(0.01)
    assert program.calls == []
    with program.signals:
        await until(lambda: program.calls == ["reload"])
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0.01)
    assert program.calls == ["reload"]
    assert signal.SIGTERM in signal.sigpending()


@pytest.mark.loop("virtual")
async def test_signals_without_end_are_acted_on_five_times_a_second_and_the_last_one_is_not_missed() -> None:
    acted_at: list[float] = []
    loop = asyncio.get_running_loop()
    act = Paced(lambda: acted_at.append(loop.time()))
    began_at = loop.time()
    for _ in range(950):
        act()
        await asyncio.sleep(0.001)
    assert len(acted_at) == 5
    await asyncio.sleep(1.0)
    assert [round(at - began_at, 3) for at in acted_at] == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    act()
    assert len(acted_at) == 7
