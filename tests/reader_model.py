"""A reader that keeps a table of sessions from events alone, and finds every event that does not fit.

model = ReaderModel()                  # of a stream that it reads from before the first session, or from a `Snapshot` on
model.take(subscriber.poll(1.0))       # asserts the order of each life
model.differences(sessions)            # against the answer of the `sessions` command, when nothing is on its way
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from rlpx.engine.client.batch_reader import Event, Gap, Malformed
from rlpx.engine.client.joining import Change, Snapshot
from rlpx.protocol.bus.events import ENGINE_STARTED

# How far a session has come, in the words of its events.
LIFE: Final = ("opened", "authenticated", "established")


class ReaderModel:
    """`sessions`: by number, the last of `LIFE` that was told. `lost`: events of sessions that are missing."""

    def __init__(self) -> None:
        self.sessions: dict[int, str] = {}
        self.peers: dict[int, str | None] = {}
        self.ended: set[int] = set()
        self.lost = 0
        self.missed = 0
        self.received = 0
        self.restarts = 0
        self._trace: dict[int, list[str]] = {}

    def take(self, items: Iterable[Change]) -> None:
        """What was read. Raises `AssertionError` where an event does not fit."""
        for item in items:
            if isinstance(item, Snapshot):
                self._begin(item.sessions)
            elif isinstance(item, Gap):
                self.missed += item.missed
                # After that a life may have holes, but no event comes twice or behind its end.
                self.lost += item.missed if item.topic.startswith("session.") else 0
            else:
                assert not isinstance(item, Malformed), item
                self.received += 1
                self._on_event(item)

    def differences(self, sessions: Iterable[dict[str, Any]]) -> list[str]:
        """Where the table differs from session objects; those that are being dialled are not open yet."""
        theirs = {item["session"]: item for item in sessions if item["stage"] != "connect"}
        found = [f"{number} is {self.sessions[number]}, but not there" for number in self.sessions.keys() - theirs.keys()]
        for number, item in theirs.items():
            ours = self.sessions.get(number)
            if (ours == "established") != (item["phase"] == "active"):
                found.append(f"{number} is {ours}, but {item['phase']}")
            elif ours == "established" and self.peers[number] != item["peer"]:
                found.append(f"{number} is of {self.peers[number]}, but of {item['peer']}")
        return found

    def _begin(self, sessions: list[dict[str, Any]]) -> None:
        self.sessions = {
            item["session"]: "established" if item["phase"] == "active" else "authenticated" if item["peer"] else "opened"
            for item in sessions
        }
        self.peers = {item["session"]: item["peer"] for item in sessions}
        assert not self.ended & self.sessions.keys(), "a session that had ended is there again"
        self.lost = 0

    def _on_event(self, event: Event) -> None:
        if event.topic == ENGINE_STARTED:
            # The first start is no restart; what is known of another run is nothing.
            self.restarts += 1
            self.sessions, self.peers, self.ended, self._trace = {}, {}, set(), {}
            return
        group, _, name = event.topic.partition(".")
        session = event.fields.get("session")
        if session is None or group in {"dial", "engine", "worker"} or event.topic == "session.refused":
            return
        trace = self._trace.setdefault(session, [])
        trace.append(f"{event.topic} {event.worker}/{event.ordinal}")
        del trace[:-8]
        known = self.sessions.get(session)
        assert session not in self.ended, f"{event.topic} after the end of {session}: {trace}"
        if group != "session":
            assert known == "established" or self.lost or group == "peer", f"{event.topic} of {session}: {known}, {trace}"
        elif name == "closed":
            assert known is not None or self.lost, f"the end of {session}, which was not open: {trace}"
            self.sessions.pop(session, None)
            self.peers.pop(session, None)
            self.ended.add(session)
        else:
            self._go_on(session, known, name, event)

    def _go_on(self, session: int, known: str | None, name: str, event: Event) -> None:
        place = -1 if known is None else LIFE.index(known)
        trace = self._trace[session]
        # A dialled peer is known before it has proved who it is.
        assert LIFE.index(name) > place, f"{name} of {session}, which is {known}: {trace}"
        is_next = LIFE.index(name) == place + 1 or (known == "authenticated" and name == "established")
        assert is_next or self.lost, f"{name} of {session}, which is {known}: {trace}"
        self.sessions[session] = name
        self.peers[session] = event.fields["peer"]
