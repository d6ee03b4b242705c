"""A run from its first process to its verdict, with fake processes and a fake engine, on a clock of the test's own."""

from __future__ import annotations

import json
import os
import signal
import socket
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from rlpx.engine.swarm import run as swarm_run
from rlpx.engine.swarm.fleet import Lost, News
from rlpx.engine.swarm.run import Run
from rlpx.engine.swarm.watch import Cost, Watch
from rlpx.protocol.bus.swarm import Address, Begin, Ends, Fault, Faults, Ramp, Report, Returned, Scenario
from rlpx.protocol.eth.forkid import Chain
from rlpx.protocol.mistakes import ConfigError

CHAIN = Chain("dev", 1, "00" * 32)
SCENARIO = Scenario("a test", peers=4, processes=2, seconds=5.0, ramp=Ramp(peers_per_s=1.0))
REPORT = Report(0, 1.0, {"dials": 2, "connected": 2, "established": 2}, {}, {}, {}, 2, 0.1, 0.0, 0.0, 1)
LAST = Report(0, 0.1, {}, {"left": 2}, {}, {}, 0, 0.1, 0.0, 0.0, 1, is_last=True)
POLL_SECONDS = 0.5


def changed(report: Report, **changes: Any) -> Report:
    return msgspec.structs.replace(report, **changes)


class FakeWatch:
    """The engine of a run directory."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(established=2)
        self.ends: Counter[str] = Counter()
        self.dialled: list[str] = []
        self.error: str | None = None
        self.is_there = True
        self.has_settled = False

    def dial(self, enode: str) -> str | None:
        self.dialled.append(enode)
        return self.error

    def read(self) -> None:
        pass

    def settle(self) -> None:
        self.has_settled = True

    def cost(self) -> Cost:
        return Cost(1.0, 1 << 20)


class Harness:
    """A fake fleet: each poll takes half a second and returns the next of `polls`, until that is empty."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.polls: list[list[News] | Callable[[], list[News]]] = []
        self.enodes: dict[int, str] = {}
        self.is_leaving = False
        self.is_ready = True
        self.is_closed = False
        self.left_at: list[float] = []
        self.given_up: list[Lost] = []
        self.watch: FakeWatch | None = None
        self.scenario = SCENARIO
        self.target = b"\x01" * 64
        self.port = 1
        self.flags: dict[str, Any] = {}
        monkeypatch.setattr(swarm_run, "monotonic", lambda: self.now)
        monkeypatch.setattr(swarm_run, "SwarmFleet", lambda: self)

    def runs(self) -> tuple[int, str | None]:
        flags: dict[str, Any] = {"json": False, "plot": None, "any_reason": False, "scenario": "test", "seed": 1}
        given = Namespace(**{**flags, **self.flags})
        begin = Begin(self.scenario, 1, 0, CHAIN, self.target, Address("127.0.0.1", self.port))
        return Run(given, begin, cast("Watch | None", self.watch)).carry_out()

    # The fleet.

    def spawn(self, begin: Begin) -> None:
        assert begin.scenario is self.scenario

    def await_ready(self, is_wanted: Callable[[], bool]) -> bool:
        return self.is_ready and is_wanted()

    def go(self) -> float:
        return self.now

    def leave(self) -> None:
        self.left_at.append(self.now - 1000.0)

    @property
    def is_over(self) -> bool:
        return not self.polls

    def poll(self, _seconds: float) -> list[News]:
        self.now += POLL_SECONDS
        step = self.polls.pop(0)
        return step() if callable(step) else step

    def give_up(self) -> list[Lost]:
        return self.given_up

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    return Harness(monkeypatch)


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The output with --json."""
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_all_is_well(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.polls = [[REPORT], [changed(REPORT, index=1)], [LAST, changed(LAST, index=1)]]
    assert harness.runs() == (0, None)
    out = capsys.readouterr().out
    assert out.startswith("4 peers over 2 processes, seed 1, scenario test: a test\n")
    assert "4 dials, 4 connected, 4 established, 4 at a time" in out
    assert harness.is_closed


def test_with_json_it_is_one_document(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.flags = {"json": True}
    harness.watch = FakeWatch()
    harness.polls = [[REPORT], [LAST]]
    assert harness.runs() == (0, None)
    told = document(capsys)
    assert (told["peers"], told["processes"], told["seed"], told["scenario"]) == (4, 2, 1, "test")
    assert told["ends"] == {"left": 2}
    assert told["engine"]["counts"] == {"established": 2}
    assert told["problem"] is None
    assert harness.watch.has_settled


def test_when_time_is_up_all_are_told_to_leave_once(harness: Harness) -> None:
    harness.polls = [[REPORT], *([] for _ in range(20)), [LAST]]
    assert harness.runs() == (0, None)
    assert harness.left_at == [5.0]


def test_a_signal_is_the_end_of_the_time(harness: Harness) -> None:
    def interrupt() -> list[News]:
        signal.raise_signal(signal.SIGINT)
        return []

    before = signal.getsignal(signal.SIGINT)
    harness.polls = [[REPORT], interrupt, [], [LAST]]
    assert harness.runs() == (0, None)
    assert harness.left_at == [1.0]
    assert harness.is_leaving
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_waits_for_nobody(harness: Harness) -> None:
    def terminate() -> list[News]:
        signal.raise_signal(signal.SIGTERM)
        return []

    harness.polls = [[REPORT], terminate, terminate, *([] for _ in range(20))]
    harness.runs()
    assert len(harness.polls) == 20


def test_a_signal_before_the_peers_are_ready_is_the_end_of_it(harness: Harness) -> None:
    harness.is_ready = False
    with pytest.raises(ConfigError, match="interrupted before the peers were ready") as error:
        harness.runs()
    assert error.value.exit_code == os.EX_UNAVAILABLE
    assert harness.is_closed


def test_who_does_not_end_in_time_is_lost(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.flags = {"json": True}
    harness.polls = [[REPORT], *([] for _ in range(100))]
    harness.given_up = [Lost(0, "did not end when it was told to")]
    assert harness.runs() == (70, "1 of 2 processes of the swarm were lost")
    # The five seconds of the scenario, and those for the farewell.
    assert 35 <= 100 - len(harness.polls) <= 45
    assert document(capsys)["lost"][0]["cause"] == "did not end when it was told to"


def test_a_lost_process_is_told_with_its_peers(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.flags = {"json": True}
    harness.scenario = msgspec.structs.replace(SCENARIO, peers=5)
    harness.polls = [[REPORT, Lost(0, "was ended by signal 9")], [changed(REPORT, index=1)], [changed(LAST, index=1)]]
    assert harness.runs() == (70, "1 of 2 processes of the swarm were lost")
    told = document(capsys)
    assert told["lost"] == [{"process": 0, "cause": "was ended by signal 9", "peers": 3, "established": 2}]
    assert told["ends"] == {"left": 2, "lost with its process": 2}


def test_a_target_that_nobody_reaches(harness: Harness) -> None:
    harness.polls = [[changed(REPORT, counts={"dials": 2}, established=0)]]
    assert harness.runs() == (69, "no peer could connect")


def test_peers_that_nobody_dials(harness: Harness) -> None:
    harness.target = b""
    harness.polls = [[changed(REPORT, counts={}, established=0)]]
    assert harness.runs() == (69, "nobody dialled the peers")


def test_honest_peers_none_of_which_is_established(harness: Harness) -> None:
    harness.polls = [[changed(REPORT, counts={"connected": 2})]]
    assert harness.runs() == (1, "no session was established; is --chain that of the target?")


def test_faulty_peers_need_not_be_established(harness: Harness) -> None:
    harness.scenario = msgspec.structs.replace(SCENARIO, faults=Faults(garbage=1.0))
    harness.polls = [[changed(REPORT, counts={"connected": 2})]]
    assert harness.runs() == (0, None)


def test_a_faulty_peer_that_is_treated_otherwise_unless_any_reason_will_do(harness: Harness) -> None:
    polls: list[list[News]] = [[changed(REPORT, faults={Fault.BAD_MAC: Ends(1, {"told useless_peer": 2})})]]
    harness.polls = [*polls]
    assert harness.runs() == (1, "faulty peers were not treated as expected: bad-mac told useless_peer 2")
    harness.flags = {"any_reason": True}
    harness.polls = [*polls]
    assert harness.runs() == (0, None)


def test_an_engine_that_is_gone_in_the_end(harness: Harness) -> None:
    harness.watch = FakeWatch()
    harness.watch.is_there = False
    harness.polls = [[REPORT], [LAST]]
    assert harness.runs() == (69, "the target was gone before the end")
    assert not harness.watch.has_settled


@pytest.mark.parametrize("established", [0, 2])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_target_that_holds_nobody_any_more_is_looked_for(harness: Harness, established: int, *, is_there: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        harness.port = server.getsockname()[1]
        if not is_there:
            server.close()
        harness.polls = [[REPORT], [changed(REPORT, established=established)], [LAST]]
        gone = (69, "the target was gone before the end")
        assert harness.runs() == ((0, None) if is_there or established else gone)


def test_where_peers_listen_is_said_in_their_order(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.target, harness.enodes = b"", {1: "enode 1", 0: "enode 0"}
    harness.polls = [[REPORT]]
    harness.runs()
    assert capsys.readouterr().out.startswith("listening enode 0\nlistening enode 1\n4 peers over")
    harness.flags = {"json": True}
    harness.polls = [[REPORT]]
    harness.runs()
    told = capsys.readouterr()
    assert told.err == "listening enode 0\nlistening enode 1\n"
    assert json.loads(told.out)["peers"] == 4


def test_the_engine_dials_listening_peers_at_their_pace_and_again_when_they_are_back(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.flags = {"json": True}
    harness.target, harness.watch, harness.enodes = b"", FakeWatch(), {index: f"enode {index}" for index in range(4)}
    harness.polls = [[REPORT], [], []]
    harness.runs()
    assert harness.watch.dialled == ["enode 0", "enode 1"]
    assert "listening" not in (told := capsys.readouterr()).err
    assert json.loads(told.out)["sessions"]["dials"] == REPORT.counts["dials"] + 2
    harness.watch.dialled = []
    harness.polls = [[REPORT], [Returned(0)], [], [], []]
    harness.runs()
    assert harness.watch.dialled == ["enode 0", "enode 0", "enode 1", "enode 2"]


def test_what_the_engine_would_not_dial_is_told(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    harness.flags = {"json": True}
    harness.target, harness.watch, harness.enodes = b"", FakeWatch(), {0: "enode 0"}
    harness.watch.error = "refused"
    harness.polls = [[REPORT], [], [], [], [], []]
    harness.runs()
    assert len(harness.watch.dialled) == 2
    assert document(capsys)["ends"]["the engine would not dial: refused"] == 2


def test_who_leaves_is_not_dialled_any_more(harness: Harness) -> None:
    harness.target, harness.watch, harness.enodes = b"", FakeWatch(), {index: f"enode {index}" for index in range(20)}
    harness.polls = [[REPORT], *([] for _ in range(15)), [Returned(0)], [], []]
    harness.runs()
    assert harness.left_at == [5.0]
    assert harness.watch.dialled == [f"enode {index}" for index in range(5)]


def test_a_picture_of_it_is_written(harness: Harness, tmp_path: Path) -> None:
    harness.flags = {"plot": str(tmp_path / "swarm.svg")}
    harness.watch = FakeWatch()
    harness.polls = [[REPORT], [], [changed(REPORT, established=7)], [], [LAST]]
    harness.runs()
    text = (tmp_path / "swarm.svg").read_text()
    assert "rlpx-swarm test: 4 peers over 2 processes" in text
    assert "engine memory" in text


def test_a_picture_that_cannot_be_written_is_said_after_the_summary(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.flags = {"plot": str(tmp_path)}
    harness.polls = [[REPORT], [LAST]]
    with pytest.raises(ConfigError, match=r"^--plot: .*: Is a directory$") as error:
        harness.runs()
    assert error.value.exit_code == os.EX_CONFIG
    assert "4 peers over" in capsys.readouterr().out
