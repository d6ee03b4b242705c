"""Processes of a swarm as their command sees them, each played by the test on the other end of its stream."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from time import monotonic

import pytest

from engine import swarm_fleet
from engine.config import EXIT_SOFTWARE, EXIT_UNAVAILABLE, ConfigError
from engine.swarm_fleet import Lost, News, SwarmFleet
from protocol import swarm
from protocol.forkid import Chain
from protocol.swarm import Address, Begin, Failed, Go, Leave, Order, Ready, Report, Returned, Scenario, Word

BEGIN = Begin(
    Scenario("test", peers=6, processes=3), 7, 0, Chain("dev", 1, "00" * 32), b"\x01" * 64, Address("127.0.0.1", 1)
)
REPORT = Report(1, 1.0, {"dials": 3}, {}, {}, {}, 2, 0.1, 0.0, 0.0, 1)
PATIENCE_SECONDS = 10.0


class PlayedProcess:
    """What the fleet believes to be a process. `code` is what it ends with; `None`: it goes on until it is killed."""

    def __init__(self, _command: list[str], pass_fds: list[int]) -> None:
        self.stream = socket.socket(fileno=os.dup(pass_fds[0]))
        self.code: int | None = 0
        self.is_killed = False
        self.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, set())
        self._decoder = swarm.order_decoder()

    def says(self, *words: Word) -> None:
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
            raise subprocess.TimeoutExpired("played", timeout or 0.0)
        return self.code

    def kill(self) -> None:
        self.is_killed = True


class Scene:
    """A fleet of three played processes that have begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.processes: list[PlayedProcess] = []

        def spawn(command: list[str], pass_fds: list[int]) -> PlayedProcess:
            self.processes.append(PlayedProcess(command, pass_fds))
            return self.processes[-1]

        monkeypatch.setattr(subprocess, "Popen", spawn)
        self.fleet = SwarmFleet()
        self.fleet.spawn(BEGIN)

    def are_ready(self) -> None:
        for process in self.processes:
            process.says(Ready())
            process.hears()
        assert self.fleet.await_ready(lambda: True)

    def news(self, count: int = 1) -> list[News]:
        """The next `count` of them."""
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
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


@pytest.fixture(autouse=True)
def _is_closed(scene: Scene) -> object:
    yield
    scene.close()


def test_each_process_is_told_its_part(scene: Scene) -> None:
    orders = [process.hears() for process in scene.processes]
    assert [[order.index for order in told if isinstance(order, Begin)] for told in orders] == [[0], [1], [2]]
    assert {told[0].seed for told in orders if isinstance(told[0], Begin)} == {7}


def test_an_interrupt_is_for_the_command_alone_from_the_first_moment_on(scene: Scene) -> None:
    assert all(signal.SIGINT in process.blocked for process in scene.processes)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_two_of_three_are_not_all(scene: Scene) -> None:
    asked = iter([True, True, False])
    for index in (0, 2):
        scene.processes[index].says(Ready())
    assert not scene.fleet.await_ready(lambda: next(asked))


def test_where_the_peers_listen_is_known_when_all_are_ready(scene: Scene) -> None:
    for index, process in enumerate(scene.processes):
        process.says(Ready({index: f"enode {index}", index + 3: f"enode {index + 3}"}))
    assert scene.fleet.await_ready(lambda: True)
    assert scene.fleet.enodes == {index: f"enode {index}" for index in range(6)}


def test_who_is_not_wanted_any_more_is_not_waited_for(scene: Scene) -> None:
    assert not scene.fleet.await_ready(lambda: False)


def test_a_process_that_cannot_begin_says_why(scene: Scene) -> None:
    scene.processes[1].says(Failed("--listen: 127.0.0.1:80: Permission denied"))
    with pytest.raises(ConfigError, match=r"^--listen: 127.0.0.1:80: Permission denied$") as error:
        scene.fleet.await_ready(lambda: True)
    assert error.value.exit_code == EXIT_UNAVAILABLE


def test_a_process_that_ends_before_it_is_ready_is_a_fault_of_ours(scene: Scene) -> None:
    scene.processes[2].ends(3)
    with pytest.raises(ConfigError, match=r"^process 2 of the swarm ended with exit code 3$") as error:
        scene.fleet.await_ready(lambda: True)
    assert error.value.exit_code == EXIT_SOFTWARE


def test_processes_are_not_waited_for_without_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm_fleet, "START_SECONDS", -1.0)
    with pytest.raises(ConfigError, match="not ready within"):
        scene.fleet.await_ready(lambda: True)


def test_all_begin_at_one_time_a_moment_later_and_leave_together(scene: Scene) -> None:
    scene.are_ready()
    before = monotonic()
    starts_at = scene.fleet.go()
    assert starts_at > before
    assert [process.hears() for process in scene.processes] == [[Go(starts_at)]] * 3
    scene.fleet.leave()
    assert [process.hears() for process in scene.processes] == [[Leave()]] * 3


def test_what_a_process_says_arrives_in_any_cut(scene: Scene) -> None:
    scene.are_ready()
    data = swarm.encode(REPORT) + swarm.encode(Returned(4))
    scene.processes[1].stream.sendall(data[:20])
    assert scene.fleet.poll(0.1) == []
    scene.processes[0].says(Returned(3))
    scene.processes[1].stream.sendall(data[20:])
    found = scene.news(3)
    assert Returned(3) in found
    assert [news for news in found if news != Returned(3)] == [REPORT, Returned(4)]


@pytest.mark.parametrize(
    ("code", "cause"),
    [(-9, "was ended by signal 9"), (70, "ended with exit code 70"), (0, "left before it was told to")],
)
def test_a_process_that_ends_in_the_middle_is_lost_behind_its_last_words(scene: Scene, code: int, cause: str) -> None:
    scene.are_ready()
    scene.processes[1].says(REPORT)
    scene.processes[1].ends(code)
    assert scene.news(2) == [REPORT, Lost(1, cause)]
    assert not scene.fleet.is_over
    scene.processes[0].says(Returned(0))
    assert scene.news() == [Returned(0)]


def test_who_ends_when_told_to_is_not_lost(scene: Scene) -> None:
    scene.are_ready()
    scene.fleet.leave()
    for process in scene.processes:
        process.hears()
        process.says(REPORT)
        process.ends(0)
    assert scene.news(3) == [REPORT] * 3
    assert scene.fleet.poll(0) == []
    assert scene.fleet.is_over


def test_who_ends_otherwise_than_told_is_lost_all_the_same(scene: Scene) -> None:
    scene.are_ready()
    scene.fleet.leave()
    scene.processes[0].hears()
    scene.processes[0].ends(1)
    assert scene.news() == [Lost(0, "ended with exit code 1")]


def test_a_signal_to_the_whole_group_makes_nobody_lost(scene: Scene) -> None:
    scene.are_ready()
    scene.fleet.is_leaving = True
    for process in scene.processes:
        process.says(REPORT)
        process.ends(0)
    assert scene.news(3) == [REPORT] * 3
    assert scene.fleet.poll(0) == []


def test_a_process_that_ends_with_an_order_unread_is_lost_and_no_error(scene: Scene) -> None:
    scene.are_ready()
    scene.fleet.go()
    # Linux resets a stream that is closed with bytes unread.
    scene.processes[2].ends(-6)
    assert scene.news() == [Lost(2, "was ended by signal 6")]
    scene.fleet.leave()


def test_a_process_that_lets_go_of_its_stream_and_stays_is_killed(scene: Scene) -> None:
    scene.are_ready()
    scene.processes[1].ends(None)
    assert scene.news() == [Lost(1, "did not end by itself")]
    assert scene.processes[1].is_killed


def test_those_that_are_late_to_leave_are_given_up(scene: Scene) -> None:
    scene.are_ready()
    scene.fleet.leave()
    for process in scene.processes:
        process.hears()
    scene.processes[0].ends(0)
    assert scene.fleet.poll(PATIENCE_SECONDS) == []
    assert scene.fleet.give_up() == [Lost(index, "did not end when it was told to") for index in (1, 2)]
    assert [process.is_killed for process in scene.processes] == [False, True, True]
    assert scene.fleet.is_over


def test_at_the_close_nobody_is_left_behind(scene: Scene) -> None:
    scene.are_ready()
    scene.processes[2].code = None
    scene.fleet.close()
    for process in scene.processes:
        assert process.stream.recv(1) == b""
    assert [process.is_killed for process in scene.processes] == [False, False, True]
