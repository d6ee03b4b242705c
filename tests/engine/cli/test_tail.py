"""`rlpx-tail`: events as lines, gaps for lost events, and its ends."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import orjson
import pytest
import zmq

from rlpx.engine.cli import tail
from rlpx.engine.cli.tail import SHOWN_PAYLOAD_BYTES, main
from rlpx.engine.client.batch_reader import Event, Gap

NOON_US = 1_700_000_000_000_000
OPENED = Event(
    "session.opened", None, {"time_us": NOON_US + 5, "session": 7, "peer": None, "direction": "inbound", "worker": 3}, b""
)
MESSAGE = Event("eth.Transactions", 1, {"time_us": NOON_US, "session": 7, "peer": "ab" * 64, "size": 3}, b"\x01\x02\x03")
LOST = Gap("eth.Transactions", 1, 4)


class ScriptedSubscriber:
    """Returns one list of events for each poll, then nothing; each poll takes time on the scripted clock."""

    def __init__(self, polls: Iterable[list[Event | Gap]] = (), *, is_missing: bool = False) -> None:
        self.polls = list(polls)
        self.now = 100.0
        self.waits: list[float] = []
        self.topics: list[str] = []
        self.endpoint = "ipc:///run/events.ipc"
        self.is_missing = is_missing
        self.is_closed = False
        # The engine's socket is gone when there is nothing more.
        self.ends = False

    def poll(self, seconds: float) -> list[Event | Gap]:
        """The next."""
        self.waits.append(seconds)
        if self.polls:
            return self.polls.pop(0)
        self.now += seconds
        self.is_missing = self.ends
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closed = True


def printed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    subscriber: ScriptedSubscriber,
    *arguments: str,
) -> list[str]:
    """The lines that it prints for these events."""

    def connect(endpoint: str, topics: list[str], key: str | None = None) -> ScriptedSubscriber:
        assert key is None
        assert endpoint == "scripted"
        subscriber.topics = topics
        return subscriber

    monkeypatch.setattr(tail, "Subscriber", connect)
    monkeypatch.setattr(tail, "monotonic", lambda: subscriber.now)
    main(["--connect", "scripted", *arguments])
    captured = capsys.readouterr()
    assert captured.err == ""
    assert subscriber.is_closed
    return captured.out.splitlines()


def test_an_event_is_one_line_of_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(monkeypatch, capsys, ScriptedSubscriber([[OPENED, MESSAGE]]), "--count", "2") == [
        "22:13:20.000005 session.opened session=7 peer=- direction=inbound worker=3",
        "22:13:20.000000 eth.Transactions session=7 peer=abababababababab size=3 0x010203",
    ]


def test_a_long_payload_is_cut_as_text_and_whole_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fits = bytes(SHOWN_PAYLOAD_BYTES)
    for payload, shown in ((fits, f"0x{fits.hex()}"), (fits + b"\x01", f"0x{fits.hex()}…")):
        event = Event("eth.Transactions", 1, MESSAGE.fields | {"size": len(payload)}, payload)
        [line] = printed(monkeypatch, capsys, ScriptedSubscriber([[event]]), "--count", "1")
        assert line.endswith(f" {shown}")
        [line] = printed(monkeypatch, capsys, ScriptedSubscriber([[event]]), "--count", "1", "--json")
        assert orjson.loads(line)["payload"] == "0x" + payload.hex()


def test_an_event_is_one_object_of_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(monkeypatch, capsys, ScriptedSubscriber([[MESSAGE]]), "--count", "1", "--json")
    assert [orjson.loads(line) for line in lines] == [
        {
            "topic": "eth.Transactions",
            "worker": 1,
            "time_us": NOON_US,
            "session": 7,
            "peer": "ab" * 64,
            "size": 3,
            "payload": "0x010203",
        }
    ]


def test_an_empty_payload_is_shown_in_json_where_the_event_has_a_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = Event("eth.Status", 1, MESSAGE.fields | {"size": 0}, b"")
    lines = printed(monkeypatch, capsys, ScriptedSubscriber([[empty, OPENED]]), "--count", "2", "--json")
    assert [orjson.loads(line).get("payload") for line in lines] == ["0x", None]


def test_the_worker_of_a_lifecycle_event_is_its_sessions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [line] = printed(monkeypatch, capsys, ScriptedSubscriber([[OPENED]]), "--count", "1", "--json")
    assert orjson.loads(line)["worker"] == 3


def test_a_gap_is_a_line_of_its_own_and_no_event(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(monkeypatch, capsys, ScriptedSubscriber([[LOST, MESSAGE]]), "--count", "1")[0] == (
        "-- gap in eth.Transactions of worker 1: 4 missed"
    )
    lines = printed(monkeypatch, capsys, ScriptedSubscriber([[LOST, MESSAGE]]), "--count", "1", "--json")
    assert orjson.loads(lines[0]) == {"topic": "gap", "of": "eth.Transactions", "worker": 1, "missed": 4}
    assert len(lines) == 2


def test_a_gap_of_the_engine_has_no_worker(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    polls: list[list[Event | Gap]] = [[Gap("session.closed", None, 1), OPENED]]
    lines = printed(monkeypatch, capsys, ScriptedSubscriber(polls), "--count", "1")
    assert lines[0] == "-- gap in session.closed of worker -: 1 missed"


@pytest.mark.parametrize(("count", "lines"), [("0", 0), ("1", 1), ("3", 3), ("4", 4)])
def test_it_ends_after_so_many_events_even_within_a_batch(
    count: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    polls: list[list[Event | Gap]] = [[OPENED] * 3, [OPENED] * 3]
    assert len(printed(monkeypatch, capsys, ScriptedSubscriber(polls), "--count", count)) == lines


def test_it_ends_after_so_many_seconds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    subscriber = ScriptedSubscriber([[OPENED]])
    assert len(printed(monkeypatch, capsys, subscriber, "--seconds", "1.2")) == 1
    assert subscriber.now == pytest.approx(101.2)
    assert max(subscriber.waits) <= 0.5


def test_events_do_not_keep_it_beyond_its_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Busy(ScriptedSubscriber):
        def poll(self, seconds: float) -> list[Event | Gap]:
            self.now += min(0.1, seconds)
            return [OPENED]

    assert 9 <= len(printed(monkeypatch, capsys, Busy(), "--seconds", "1")) <= 11


def test_without_topics_it_reads_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    subscriber = ScriptedSubscriber([[OPENED]])
    printed(monkeypatch, capsys, subscriber, "--count", "1")
    assert subscriber.topics == [""]
    subscriber = ScriptedSubscriber([[OPENED]])
    printed(monkeypatch, capsys, subscriber, "--count", "1", "session.", "eth.Transactions")
    assert subscriber.topics == ["session.", "eth.Transactions"]


def test_a_peers_text_cannot_forge_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fields: dict[str, Any] = OPENED.fields | {"client": "geth\n-- gap in eth.Status of worker 1: 9 missed\x1b[2J"}
    event = Event("session.established", None, fields, b"")
    lines = printed(monkeypatch, capsys, ScriptedSubscriber([[event]]), "--count", "1")
    assert len(lines) == 1
    assert lines[0].isprintable()


def ended(monkeypatch: pytest.MonkeyPatch, subscriber: ScriptedSubscriber, *arguments: str) -> object:
    """The exit code of a failed run."""
    monkeypatch.setattr(tail, "Subscriber", lambda *_, **__: subscriber)
    monkeypatch.setattr(tail, "monotonic", lambda: subscriber.now)
    with pytest.raises(SystemExit) as caught:
        main(["--connect", "scripted", *arguments])
    return caught.value.code


def test_no_engine_is_exit_code_69(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    subscriber = ScriptedSubscriber(is_missing=True)
    assert ended(monkeypatch, subscriber) == 69
    assert capsys.readouterr().err == "rlpx-tail: no engine at ipc:///run/events.ipc\n"
    assert subscriber.is_closed


def test_no_run_directory_is_exit_code_69(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--run-dir", str(tmp_path)])
    assert caught.value.code == 69
    assert capsys.readouterr().err == f"rlpx-tail: no engine at ipc://{tmp_path}/events.ipc\n"


def test_a_run_directory_of_nobody_is_one_line_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--run-dir", "~nobody-of-this-name/run"])
    assert caught.value.code in {64, 69, 78}
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_endpoint_that_is_none_is_one_line_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    code: object = None
    with warnings.catch_warnings():
        # A socket that it leaves open must not cause a warning in another test.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            main(["--connect", "nonsense"])
        except SystemExit as end:
            code = end.code
        except zmq.ZMQError as error:
            code = repr(error)
        gc.collect()
    assert code in {64, 69}
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_engine_that_ends_meanwhile_is_exit_code_69_after_the_last_event(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subscriber = ScriptedSubscriber([[OPENED]])
    subscriber.ends = True
    assert ended(monkeypatch, subscriber) == 69
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    assert captured.err == "rlpx-tail: the engine at ipc:///run/events.ipc has ended\n"


def test_an_interrupt_is_a_quiet_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted(ScriptedSubscriber):
        def poll(self, seconds: float) -> list[Event | Gap]:
            if not self.polls:
                raise KeyboardInterrupt
            return super().poll(seconds)

    assert len(printed(monkeypatch, capsys, Interrupted([[OPENED]]))) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--count", "x"],
        ["--count", "-1"],
        ["--seconds", "x"],
        ["--seconds", "nan"],
        ["--sec", "1"],
        ["--run-dir", "a", "--connect", "b"],
        ["--connect", "nonsense"],
    ],
)
def test_wrong_usage_is_exit_code_64(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 64
    assert len(capsys.readouterr().err.splitlines()) == 1
