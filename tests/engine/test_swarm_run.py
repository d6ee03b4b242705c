"""A run from its first process to its verdict, with processes and an engine that the test plays, on its own clock."""

from __future__ import annotations

import json
import signal
import socket
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from engine import swarm_run
from engine.config import EXIT_PERMISSION, EXIT_UNAVAILABLE, ConfigError
from engine.swarm_fleet import Lost, News
from engine.swarm_run import Run
from engine.swarm_watch import Cost, Watch
from protocol.forkid import Chain
from protocol.swarm import Address, Begin, Ends, Fault, Faults, Ramp, Report, Returned, Scenario

CHAIN = Chain("dev", 1, "00" * 32)
SCENARIO = Scenario("a test", peers=4, processes=2, seconds=5.0, ramp=Ramp(peers_per_s=1.0))
REPORT = Report(0, 1.0, {"dials": 2, "connected": 2, "established": 2}, {}, {}, {}, 2, 0.1, 0.0, 0.0, 1)
LAST = Report(0, 0.1, {}, {"left": 2}, {}, {}, 0, 0.1, 0.0, 0.0, 1, is_last=True)
POLL_SECONDS = 0.5


def changed(report: Report, **changes: Any) -> Report:
    return msgspec.structs.replace(report, **changes)


class PlayedWatch:
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


class Scene:
    """What a run believes to be its fleet: a poll takes half a second and gives what `polls` holds, until that is empty."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.polls: list[list[News] | Callable[[], list[News]]] = []
        self.enodes: dict[int, str] = {}
        self.is_leaving = False
        self.is_ready = True
        self.is_closed = False
        self.left_at: list[float] = []
        self.given_up: list[Lost] = []
        self.watch: PlayedWatch | None = None
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
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What was printed with --json."""
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_all_is_well(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.polls = [[REPORT], [changed(REPORT, index=1)], [LAST, changed(LAST, index=1)]]
    assert scene.runs() == (0, None)
    out = capsys.readouterr().out
    assert out.startswith("4 peers over 2 processes, seed 1, scenario test: a test\n")
    assert "4 dials, 4 connected, 4 established, 4 at a time" in out
    assert scene.is_closed


def test_with_json_it_is_one_document(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.flags = {"json": True}
    scene.watch = PlayedWatch()
    scene.polls = [[REPORT], [LAST]]
    assert scene.runs() == (0, None)
    told = document(capsys)
    assert (told["peers"], told["processes"], told["seed"], told["scenario"]) == (4, 2, 1, "test")
    assert told["ends"] == {"left": 2}
    assert told["engine"]["counts"] == {"established": 2}
    assert told["problem"] is None
    assert scene.watch.has_settled


def test_when_time_is_up_all_are_told_to_leave_once(scene: Scene) -> None:
    scene.polls = [[REPORT], *([] for _ in range(20)), [LAST]]
    assert scene.runs() == (0, None)
    assert scene.left_at == [5.0]


def test_a_signal_is_the_end_of_the_time(scene: Scene) -> None:
    def interrupt() -> list[News]:
        signal.raise_signal(signal.SIGINT)
        return []

    before = signal.getsignal(signal.SIGINT)
    scene.polls = [[REPORT], interrupt, [], [LAST]]
    assert scene.runs() == (0, None)
    assert scene.left_at == [1.0]
    assert scene.is_leaving
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_waits_for_nobody(scene: Scene) -> None:
    def terminate() -> list[News]:
        signal.raise_signal(signal.SIGTERM)
        return []

    scene.polls = [[REPORT], terminate, terminate, *([] for _ in range(20))]
    scene.runs()
    assert len(scene.polls) == 20


def test_a_signal_before_the_peers_are_ready_is_the_end_of_it(scene: Scene) -> None:
    scene.is_ready = False
    with pytest.raises(ConfigError, match="interrupted before the peers were ready") as error:
        scene.runs()
    assert error.value.exit_code == EXIT_UNAVAILABLE
    assert scene.is_closed


def test_who_does_not_end_in_time_is_lost(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.flags = {"json": True}
    scene.polls = [[REPORT], *([] for _ in range(100))]
    scene.given_up = [Lost(0, "did not end when it was told to")]
    assert scene.runs() == (70, "1 of 2 processes of the swarm were lost")
    # The five seconds of the scenario, and those for the farewell.
    assert 35 <= 100 - len(scene.polls) <= 45
    assert document(capsys)["lost"][0]["cause"] == "did not end when it was told to"


def test_a_lost_process_is_told_with_its_peers(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.flags = {"json": True}
    scene.scenario = msgspec.structs.replace(SCENARIO, peers=5)
    scene.polls = [[REPORT, Lost(0, "was ended by signal 9")], [changed(REPORT, index=1)], [changed(LAST, index=1)]]
    assert scene.runs() == (70, "1 of 2 processes of the swarm were lost")
    told = document(capsys)
    assert told["lost"] == [{"process": 0, "cause": "was ended by signal 9", "peers": 3, "established": 2}]
    assert told["ends"] == {"left": 2, "lost with its process": 2}


def test_a_target_that_nobody_reaches(scene: Scene) -> None:
    scene.polls = [[changed(REPORT, counts={"dials": 2}, established=0)]]
    assert scene.runs() == (69, "nobody could be reached")


def test_peers_that_nobody_dials(scene: Scene) -> None:
    scene.target = b""
    scene.polls = [[changed(REPORT, counts={}, established=0)]]
    assert scene.runs() == (69, "nobody dialled the peers")


def test_honest_peers_none_of_which_is_established(scene: Scene) -> None:
    scene.polls = [[changed(REPORT, counts={"connected": 2})]]
    assert scene.runs() == (1, "no session was established; is --chain that of the target?")


def test_faulty_peers_need_not_be_established(scene: Scene) -> None:
    scene.scenario = msgspec.structs.replace(SCENARIO, faults=Faults(garbage=1.0))
    scene.polls = [[changed(REPORT, counts={"connected": 2})]]
    assert scene.runs() == (0, None)


def test_a_faulty_peer_that_is_treated_otherwise_unless_any_reason_will_do(scene: Scene) -> None:
    polls: list[list[News]] = [[changed(REPORT, faults={Fault.BAD_MAC: Ends(1, {"told useless_peer": 2})})]]
    scene.polls = [*polls]
    assert scene.runs() == (1, "faulty peers were treated otherwise than expected: bad-mac told useless_peer 2")
    scene.flags = {"any_reason": True}
    scene.polls = [*polls]
    assert scene.runs() == (0, None)


def test_an_engine_that_is_gone_in_the_end(scene: Scene) -> None:
    scene.watch = PlayedWatch()
    scene.watch.is_there = False
    scene.polls = [[REPORT], [LAST]]
    assert scene.runs() == (69, "the target was gone before the end")
    assert not scene.watch.has_settled


@pytest.mark.parametrize("established", [0, 2])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_target_that_holds_nobody_any_more_is_looked_for(scene: Scene, established: int, *, is_there: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        scene.port = server.getsockname()[1]
        if not is_there:
            server.close()
        scene.polls = [[REPORT], [changed(REPORT, established=established)], [LAST]]
        gone = (69, "the target was gone before the end")
        assert scene.runs() == ((0, None) if is_there or established else gone)


def test_where_peers_listen_is_said_in_their_order(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.target, scene.enodes = b"", {1: "enode 1", 0: "enode 0"}
    scene.polls = [[REPORT]]
    scene.runs()
    assert capsys.readouterr().out.startswith("listening enode 0\nlistening enode 1\n4 peers over")
    scene.flags = {"json": True}
    scene.polls = [[REPORT]]
    scene.runs()
    told = capsys.readouterr()
    assert told.err == "listening enode 0\nlistening enode 1\n"
    assert json.loads(told.out)["peers"] == 4


def test_the_engine_dials_listening_peers_at_their_pace_and_again_when_they_are_back(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.flags = {"json": True}
    scene.target, scene.watch, scene.enodes = b"", PlayedWatch(), {index: f"enode {index}" for index in range(4)}
    scene.polls = [[REPORT], [], []]
    scene.runs()
    assert scene.watch.dialled == ["enode 0", "enode 1"]
    assert "listening" not in (told := capsys.readouterr()).err
    assert json.loads(told.out)["sessions"]["dials"] == REPORT.counts["dials"] + 2
    scene.watch.dialled = []
    scene.polls = [[REPORT], [Returned(0)], [], [], []]
    scene.runs()
    assert scene.watch.dialled == ["enode 0", "enode 0", "enode 1", "enode 2"]


def test_what_the_engine_would_not_dial_is_told(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.flags = {"json": True}
    scene.target, scene.watch, scene.enodes = b"", PlayedWatch(), {0: "enode 0"}
    scene.watch.error = "refused"
    scene.polls = [[REPORT], [], [], [], [], []]
    scene.runs()
    assert len(scene.watch.dialled) == 2
    assert document(capsys)["ends"]["the engine would not dial: refused"] == 2


def test_who_leaves_is_not_dialled_any_more(scene: Scene) -> None:
    scene.target, scene.watch, scene.enodes = b"", PlayedWatch(), {index: f"enode {index}" for index in range(20)}
    scene.polls = [[REPORT], *([] for _ in range(15)), [Returned(0)], [], []]
    scene.runs()
    assert scene.left_at == [5.0]
    assert scene.watch.dialled == [f"enode {index}" for index in range(5)]


def test_a_picture_of_it_is_written(scene: Scene, tmp_path: Path) -> None:
    scene.flags = {"plot": str(tmp_path / "swarm.svg")}
    scene.watch = PlayedWatch()
    scene.polls = [[REPORT], [], [changed(REPORT, established=7)], [], [LAST]]
    scene.runs()
    text = (tmp_path / "swarm.svg").read_text()
    assert "rlpx-swarm test: 4 peers over 2 processes" in text
    assert "engine memory" in text


def test_a_picture_that_cannot_be_written_is_said_after_the_summary(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.flags = {"plot": str(tmp_path)}
    scene.polls = [[REPORT], [LAST]]
    with pytest.raises(ConfigError, match=r"^--plot: .*: Is a directory$") as error:
        scene.runs()
    assert error.value.exit_code == EXIT_PERMISSION
    assert "4 peers over" in capsys.readouterr().out
