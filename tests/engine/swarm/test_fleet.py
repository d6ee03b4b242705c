"""Processes of a swarm as their command sees them; the test is at the other end of each stream."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from time import monotonic
from typing import cast

import pytest

from rlpx.engine.swarm import fleet as swarm_fleet
from rlpx.engine.swarm.fleet import Lost, News, SwarmFleet
from rlpx.protocol.bus import swarm
from rlpx.protocol.bus.swarm import Address, Begin, Failed, Go, Leave, Order, Ready, Report, Returned, Scenario, SwarmReport
from rlpx.protocol.eth.forkid import Chain
from rlpx.protocol.mistakes import ConfigError

BEGIN = Begin(
    Scenario("test", peers=6, processes=3), 7, 0, Chain("dev", 1, "00" * 32), b"\x01" * 64, Address("127.0.0.1", 1)
)
REPORT = Report(1, 1.0, {"dials": 3}, {}, {}, {}, 2, 0.1, 0.0, 0.0, 1)
PATIENCE_SECONDS = 60.0


class FakeProcess:
    """A process, as far as the fleet can see. `code` is its exit code; with `None` it runs until it is killed."""

    def __init__(self, descriptor: int) -> None:
        self.stream = socket.socket(fileno=os.dup(descriptor))
        self.code: int | None = 0
        self.is_killed = False
        self._decoder = swarm.order_decoder()

    def says(self, *words: SwarmReport) -> None:
        self.stream.sendall(b"".join(swarm.encode(word) for word in words))

    def hears(self) -> list[Order]:
        self.stream.setblocking(False)
        return self._decoder.feed(self.stream.recv(1 << 16))

    def ends(self, code: int | None) -> None:
        self.code = code
        self.stream.close()

    def wait(self, timeout: float | None = None) -> int:
        if self.is_killed:
            return -9
        if self.code is None:
            raise subprocess.TimeoutExpired("fake", timeout or 0.0)
        return self.code

    def kill(self) -> None:
        self.is_killed = True


class Harness:
    """A fleet of three fake processes that have begun."""

    def __init__(self) -> None:
        self.processes: list[FakeProcess] = []
        self.fleet = SwarmFleet(self._start)
        self.fleet.spawn(BEGIN)

    def _start(self, descriptor: int) -> subprocess.Popen[bytes]:
        self.processes.append(FakeProcess(descriptor))
        return cast("subprocess.Popen[bytes]", self.processes[-1])

    def are_ready(self) -> None:
        for process in self.processes:
            process.says(Ready())
            process.hears()
        assert self.fleet.await_ready(lambda: True)

    def news(self, count: int = 1) -> list[News]:
        """The next `count` news of the processes."""
        found: list[News] = []
        ends_at = monotonic() + PATIENCE_SECONDS
        while len(found) < count:
            assert monotonic() < ends_at, found
            found += self.fleet.poll(0.1)
        return found

    def close(self) -> None:
        for process in self.processes:
            process.stream.close()
        self.fleet.close()


@pytest.fixture
def harness() -> Harness:
    return Harness()


@pytest.fixture(autouse=True)
def _is_closed(harness: Harness) -> object:
    yield
    harness.close()


def test_each_process_is_told_its_part(harness: Harness) -> None:
    orders = [process.hears() for process in harness.processes]
    assert [[order.index for order in told if isinstance(order, Begin)] for told in orders] == [[0], [1], [2]]
    assert {told[0].seed for told in orders if isinstance(told[0], Begin)} == {7}


def test_an_interrupt_is_for_the_command_alone_from_the_first_moment_on() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        process = swarm_fleet.start_process(theirs.fileno())
    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    ours.close()
    process.wait(60)
    mask = int(next(line for line in status if line.startswith("SigBlk")).split()[1], 16)
    assert mask >> signal.SIGINT - 1 & 1
    assert not mask >> signal.SIGTERM - 1 & 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_two_of_three_are_not_all(harness: Harness) -> None:
    asked = iter([True, True, False])
    for index in (0, 2):
        harness.processes[index].says(Ready())
    assert not harness.fleet.await_ready(lambda: next(asked))


def test_where_the_peers_listen_is_known_when_all_are_ready(harness: Harness) -> None:
    for index, process in enumerate(harness.processes):
        process.says(Ready({index: f"enode {index}", index + 3: f"enode {index + 3}"}))
    assert harness.fleet.await_ready(lambda: True)
    assert harness.fleet.enodes == {index: f"enode {index}" for index in range(6)}


def test_who_is_not_wanted_any_more_is_not_waited_for(harness: Harness) -> None:
    assert not harness.fleet.await_ready(lambda: False)


def test_a_process_that_cannot_begin_says_why(harness: Harness) -> None:
    harness.processes[1].says(Failed("--listen: 127.0.0.1:80: Permission denied"))
    with pytest.raises(ConfigError, match=r"^--listen: 127.0.0.1:80: Permission denied$") as error:
        harness.fleet.await_ready(lambda: True)
    assert error.value.exit_code == os.EX_UNAVAILABLE


def test_a_process_that_ends_before_it_is_ready_is_a_fault_of_ours(harness: Harness) -> None:
    harness.processes[2].ends(3)
    with pytest.raises(ConfigError, match=r"^process 2 of the swarm ended with exit code 3$") as error:
        harness.fleet.await_ready(lambda: True)
    assert error.value.exit_code == os.EX_SOFTWARE


def test_processes_are_not_waited_for_without_end(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm_fleet, "START_SECONDS", -1.0)
    with pytest.raises(ConfigError, match="not ready within"):
        harness.fleet.await_ready(lambda: True)


def test_all_begin_at_one_time_a_moment_later_and_leave_together(harness: Harness) -> None:
    harness.are_ready()
    before = monotonic()
    starts_at = harness.fleet.go()
    assert starts_at > before
    assert [process.hears() for process in harness.processes] == [[Go(starts_at)]] * 3
    harness.fleet.leave()
    assert [process.hears() for process in harness.processes] == [[Leave()]] * 3


def test_what_a_process_says_arrives_in_any_cut(harness: Harness) -> None:
    harness.are_ready()
    data = swarm.encode(REPORT) + swarm.encode(Returned(4))
    harness.processes[1].stream.sendall(data[:20])
    assert harness.fleet.poll(0.1) == []
    harness.processes[0].says(Returned(3))
    harness.processes[1].stream.sendall(data[20:])
    found = harness.news(3)
    assert Returned(3) in found
    assert [news for news in found if news != Returned(3)] == [REPORT, Returned(4)]


@pytest.mark.parametrize(
    ("code", "cause"),
    [(-9, "was ended by signal 9"), (70, "ended with exit code 70"), (0, "left before it was told to")],
)
def test_a_process_that_ends_in_the_middle_is_lost_behind_its_last_words(harness: Harness, code: int, cause: str) -> None:
    harness.are_ready()
    harness.processes[1].says(REPORT)
    harness.processes[1].ends(code)
    assert harness.news(2) == [REPORT, Lost(1, cause)]
    assert not harness.fleet.is_over
    harness.processes[0].says(Returned(0))
    assert harness.news() == [Returned(0)]


def test_who_ends_when_told_to_is_not_lost(harness: Harness) -> None:
    harness.are_ready()
    harness.fleet.leave()
    for process in harness.processes:
        process.hears()
        process.says(REPORT)
        process.ends(0)
    assert harness.news(3) == [REPORT] * 3
    assert harness.fleet.poll(0) == []
    assert harness.fleet.is_over


def test_who_ends_otherwise_than_told_is_lost_all_the_same(harness: Harness) -> None:
    harness.are_ready()
    harness.fleet.leave()
    harness.processes[0].hears()
    harness.processes[0].ends(1)
    assert harness.news() == [Lost(0, "ended with exit code 1")]


def test_a_signal_to_the_whole_group_makes_nobody_lost(harness: Harness) -> None:
    harness.are_ready()
    harness.fleet.is_leaving = True
    for process in harness.processes:
        process.says(REPORT)
        process.ends(0)
    assert harness.news(3) == [REPORT] * 3
    assert harness.fleet.poll(0) == []


def test_a_process_that_ends_with_an_order_unread_is_lost_and_no_error(harness: Harness) -> None:
    harness.are_ready()
    harness.fleet.go()
    # Linux resets a stream that is closed with bytes unread.
    harness.processes[2].ends(-6)
    assert harness.news() == [Lost(2, "was ended by signal 6")]
    harness.fleet.leave()


def test_a_process_that_lets_go_of_its_stream_and_stays_is_killed(harness: Harness) -> None:
    harness.are_ready()
    harness.processes[1].ends(None)
    assert harness.news() == [Lost(1, "did not end by itself")]
    assert harness.processes[1].is_killed


def test_those_that_are_late_to_leave_are_given_up(harness: Harness) -> None:
    harness.are_ready()
    harness.fleet.leave()
    for process in harness.processes:
        process.hears()
    harness.processes[0].ends(0)
    assert harness.fleet.poll(PATIENCE_SECONDS) == []
    assert harness.fleet.give_up() == [Lost(index, "did not end when it was told to") for index in (1, 2)]
    assert [process.is_killed for process in harness.processes] == [False, True, True]
    assert harness.fleet.is_over


def test_at_the_close_nobody_is_left_behind(harness: Harness) -> None:
    harness.are_ready()
    harness.processes[2].code = None
    harness.fleet.close()
    for process in harness.processes:
        assert process.stream.recv(1) == b""
    assert [process.is_killed for process in harness.processes] == [False, False, True]
