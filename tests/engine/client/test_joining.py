"""Joining: the sessions as they are, then every change once, whatever is lost or restarted."""

from __future__ import annotations

from typing import Any, cast

import pytest

from rlpx.engine.client.batch_reader import Event, Gap, Item
from rlpx.engine.client.client import Client
from rlpx.engine.client.joining import Change, Joined, Snapshot
from rlpx.engine.client.presence import EngineUnavailableError
from rlpx.engine.client.subscriber import Subscriber


class FakeSubscriber:
    """Returns the items and the run that a test has set."""

    def __init__(self, run: str = "r") -> None:
        self.run = run
        self.endpoint = "played"
        self.early: list[Item] = []
        self.batches: list[list[Item]] = []
        self.is_closed = False
        # Whether all items that a test has set came before the snapshot.
        self.lags = False
        self.asked: list[dict[tuple[str, int | None], int]] = []

    def confirm(self, _seconds: float) -> list[Item]:
        early, self.early = self.early, []
        return early

    def poll(self, _seconds: float) -> list[Item]:
        return self.batches.pop(0) if self.batches else []

    def has_read(self, positions: dict[tuple[str, int | None], int]) -> bool:
        self.asked.append(positions)
        return not self.batches or not self.lags

    def close(self) -> None:
        self.is_closed = True


class FakeClient:
    """Answers with the snapshots that a test has set."""

    def __init__(self, *snapshots: dict[str, Any]) -> None:
        self.snapshots = list(snapshots)
        self.is_closed = False

    def call(self, method: str) -> Any:
        assert method == "snapshot"
        return self.snapshots.pop(0) if len(self.snapshots) > 1 else self.snapshots[0]

    def close(self) -> None:
        self.is_closed = True


def snapshot(*sessions: int, run: str = "r", **following: int) -> dict[str, Any]:
    """The answer to the command; `opened=3` is the position of worker 0's topic `session.opened`."""
    positions = [[f"session.{name}", 0, first] for name, first in following.items() if name != "messages"]
    positions += [["eth.A", 0, following["messages"]]] if "messages" in following else []
    return {"run": run, "sessions": [{"session": session} for session in sessions], "next": positions}


def opened(session: int, ordinal: int, run: str = "r") -> Event:
    """The opening of a session."""
    return Event("session.opened", 0, {"session": session}, b"", run, ordinal)


def message(ordinal: int, run: str = "r") -> Event:
    """A message."""
    return Event("eth.A", 0, {}, b"", run, ordinal)


def started(run: str) -> Event:
    """Another run."""
    return Event("engine.started", None, {"run": run}, b"", run, 0)


def joined(subscriber: FakeSubscriber, *snapshots: dict[str, Any]) -> Joined:
    """A join of these."""
    return Joined(cast("Client", FakeClient(*snapshots)), cast("Subscriber", subscriber))


def shown(changes: list[Change]) -> list[Any]:
    """The items in short."""
    return [
        [item["session"] for item in change.sessions]
        if isinstance(change, Snapshot)
        else (change.topic, change.ordinal if isinstance(change, Event) else change)
        for change in changes
        if isinstance(change, Snapshot | Event | Gap)
    ]


def test_what_the_snapshot_shows_is_not_told_again() -> None:
    subscriber = FakeSubscriber()
    subscriber.early = [opened(1, 0), message(4)]
    subscriber.batches = [[opened(2, 1), opened(3, 2), message(5), message(6)], [opened(4, 3)]]
    changes = joined(subscriber, snapshot(1, 2, opened=2, messages=6))
    assert shown(changes.poll(0)) == [[1, 2]]
    assert shown(changes.poll(0)) == [("session.opened", 2), ("eth.A", 6)]
    assert shown(changes.poll(0)) == [("session.opened", 3)]


def test_what_came_early_and_is_not_in_the_snapshot_follows_it() -> None:
    subscriber = FakeSubscriber()
    subscriber.early = [opened(1, 0), opened(2, 1)]
    assert shown(joined(subscriber, snapshot(1, opened=1)).poll(0)) == [[1], ("session.opened", 1)]


def test_a_topic_that_the_snapshot_does_not_name_begins_with_it() -> None:
    subscriber = FakeSubscriber()
    subscriber.batches = [[opened(1, 0)]]
    changes = joined(subscriber, snapshot())
    changes.poll(0)
    assert shown(changes.poll(0)) == [("session.opened", 0)]


def test_where_events_of_sessions_were_lost_a_snapshot_follows_and_messages_go_on() -> None:
    subscriber = FakeSubscriber()
    gap = Gap("session.opened", 0, 3, 2)
    subscriber.batches = [[gap, opened(6, 5)], [opened(7, 6), message(1)], [opened(8, 7)]]
    changes = joined(subscriber, snapshot(1, opened=2, messages=0), snapshot(1, 6, 7, opened=7, messages=2))
    changes.poll(0)
    assert shown(changes.poll(0)) == [("session.opened", gap), ("session.opened", 5)]
    assert shown(changes.poll(0)) == [[1, 6, 7]]
    assert shown(changes.poll(0)) == [("eth.A", 1)]
    assert shown(changes.poll(0)) == [("session.opened", 7)]


def test_what_other_topics_told_before_the_new_snapshot_comes_before_it() -> None:
    """Otherwise it would be followed by messages of sessions that had ended."""
    subscriber = FakeSubscriber()
    gap = Gap("session.opened", 0, 3, 2)
    subscriber.batches = [
        [gap],
        [opened(6, 5), message(1)],
        [message(2), opened(8, 7)],
        [opened(7, 6), message(3)],
        [message(4)],
    ]
    changes = joined(subscriber, snapshot(1, opened=2, messages=0), snapshot(1, 6, 7, opened=7, messages=4))
    changes.poll(0)
    assert shown(changes.poll(0)) == [("session.opened", gap)]
    subscriber.lags = True
    assert shown(changes.poll(0)) == [("eth.A", 1)]
    assert shown(changes.poll(0)) == [("eth.A", 2)]
    assert shown(changes.poll(0)) == [("eth.A", 3)]
    assert subscriber.asked[-1] == {("session.opened", 0): 7, ("eth.A", 0): 4}
    assert shown(changes.poll(0)) == [[1, 6, 7], ("session.opened", 7), ("eth.A", 4)]


def test_an_engine_that_is_replaced_before_the_place_of_the_snapshot_is_joined_anew() -> None:
    subscriber = FakeSubscriber()
    gap = Gap("session.opened", 0, 3, 2)
    subscriber.batches = [[gap], [message(1), message(9), started("s"), opened(1, 0, "s")], []]
    changes = joined(subscriber, snapshot(opened=2), snapshot(1, opened=7, messages=4), snapshot(2, opened=1, run="s"))
    changes.poll(0)
    changes.poll(0)
    subscriber.lags = True
    assert shown(changes.poll(0)) == [("eth.A", 1), ("eth.A", 9), ("engine.started", 0)]
    subscriber.run = "s"
    assert shown(changes.poll(0)) == [[2]]


def test_a_loss_of_messages_is_told_and_no_reason_to_begin_anew() -> None:
    subscriber = FakeSubscriber()
    subscriber.batches = [[Gap("eth.A", 0, 3, 0)], [opened(1, 0)]]
    changes = joined(subscriber, snapshot())
    changes.poll(0)
    assert shown(changes.poll(0)) == [("eth.A", Gap("eth.A", 0, 3, 0))]
    assert shown(changes.poll(0)) == [("session.opened", 0)]


@pytest.mark.parametrize(
    ("gap", "left"),
    [
        (Gap("session.opened", 0, 3, 0), None),
        (Gap("session.opened", 0, 5, 0), None),
        (Gap("session.opened", 0, 6, 0), Gap("session.opened", 0, 1, 5)),
        (Gap("session.opened", 0, 2, 7), Gap("session.opened", 0, 2, 7)),
    ],
)
def test_of_a_loss_only_what_the_snapshot_does_not_show_is_told(gap: Gap, left: Gap | None) -> None:
    subscriber = FakeSubscriber()
    subscriber.early = [gap]
    changes = joined(subscriber, snapshot(opened=5)).poll(0)
    assert changes[1:] == ([] if left is None else [left])


def test_after_a_restart_there_is_a_snapshot_of_the_new_run() -> None:
    subscriber = FakeSubscriber()
    subscriber.batches = [[started("s"), opened(1, 0, "s")], [opened(2, 1, "s")]]
    changes = joined(subscriber, snapshot(1, 2, opened=9), snapshot(1, opened=1, run="s"))
    changes.poll(0)
    assert shown(changes.poll(0)) == [("engine.started", 0)]
    subscriber.run = "s"
    assert shown(changes.poll(0)) == [[1]]
    assert shown(changes.poll(0)) == [("session.opened", 1)]


def test_what_was_missed_of_a_new_run_is_held_against_the_snapshot_of_that_run() -> None:
    subscriber = FakeSubscriber()
    messages = Gap("eth.A", 0, 4, 0)
    subscriber.batches = [[started("s"), Gap("session.opened", 0, 2, 0), messages, opened(3, 2, "s")]]
    changes = joined(subscriber, snapshot(opened=1), snapshot(1, 2, opened=2, messages=3, run="s"))
    changes.poll(0)
    assert shown(changes.poll(0)) == [("engine.started", 0)]
    subscriber.run = "s"
    assert shown(changes.poll(0)) == [[1, 2], ("eth.A", Gap("eth.A", 0, 1, 3)), ("session.opened", 2)]


def test_an_engine_that_is_replaced_while_it_is_joined_is_waited_for() -> None:
    subscriber = FakeSubscriber("old")
    subscriber.early = [opened(7, 0, "old")]

    def poll(_seconds: float) -> list[Item]:
        subscriber.run = "r"
        return [opened(2, 1)]

    subscriber.poll = poll  # type: ignore[method-assign]  # the batch that shows the new run
    assert shown(joined(subscriber, snapshot(1, opened=1)).poll(0)) == [[1], ("session.opened", 1)]


def test_an_engine_whose_events_are_of_another_run_for_ever_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpx.engine.client.joining.JOIN_SECONDS", 0.01)
    with pytest.raises(EngineUnavailableError, match="no batch of the run that answers"):
        joined(FakeSubscriber("old"), snapshot()).poll(0)


def test_both_connections_are_let_go_of() -> None:
    subscriber, client = FakeSubscriber(), FakeClient(snapshot())
    with Joined(cast("Client", client), cast("Subscriber", subscriber)) as changes:
        assert isinstance(next(iter(changes)), Snapshot)
    assert (subscriber.is_closed, client.is_closed) == (True, True)
