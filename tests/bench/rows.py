"""What is measured: a function a group of rows, each with the repeats it is to take, ours and theirs by turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.bench import sides
from tests.bench.reckoning import Goal, Row

# Sessions of a repeat: half a second's work.
SESSIONS: Final = 400
# Handshakes of a crowd at a time; fewer than go-ethereum's 50 pending peers.
CROWD: Final = 32
WARM_SESSIONS: Final = 50
# Sessions that send at the same time.
SENDERS: Final = 16
# Messages of a repeat on each of them: half a second's work.
MESSAGES: Final = {64: 2000, 1024: 1000, 16 * 1024: 100, 128 * 1024: 20}


def session_single(repeats: int) -> list[Row]:
    """Inbound sessions, one after the other."""
    return _sessions(repeats, 1, "one by one")


def session_crowd(repeats: int) -> list[Row]:
    """Inbound sessions, many at a time."""
    return _sessions(repeats, CROWD, f"{CROWD} at a time")


def _sessions(repeats: int, in_flight: int, words: str) -> list[Row]:
    """From accept to established, and on to the end, which the peer brings about; one reader of `session.`."""
    established: dict[str, list[float]] = {"ours": [], "geth": [], "engine": []}
    ended: dict[str, list[float]] = {"ours": [], "geth": [], "engine": []}
    with sides.ours("session.") as ours, sides.geth() as theirs:
        for side in (ours, theirs):
            side.load.order("open", count=WARM_SESSIONS, in_flight=CROWD)
            side.load.order("leave", in_flight=CROWD)
        for _ in range(repeats):
            for name, side in (("ours", ours), ("geth", theirs)):
                start = side.cpu()
                side.load.order("open", count=SESSIONS, in_flight=in_flight)
                middle = side.cpu()
                side.load.order("leave", in_flight=in_flight)
                end = side.cpu()
                established[name].append(_spent(start, middle, SESSIONS))
                ended[name].append(_spent(start, end, SESSIONS))
                if side is ours:
                    established["engine"].append((middle["engine"] - start["engine"]) / SESSIONS / 1000)
                    ended["engine"].append((end["engine"] - start["engine"]) / SESSIONS / 1000)
    return [
        Row(f"CPU per inbound session, {words}", "µs", established["ours"], established["geth"], Goal(0.95)),
        Row("  the engine process of it", "µs", established["engine"], goal=Goal(60, is_ratio=False)),
        Row("  with its end", "µs", ended["ours"], ended["geth"], Goal(0.95)),
        Row("  the engine process of that", "µs", ended["engine"]),
    ]


def _spent(start: dict[str, int], end: dict[str, int], count: int) -> float:
    """Microseconds of all parts for each of so many."""
    return (sum(end.values()) - sum(start.values())) / count / 1000


GROUPS: Final[dict[str, Callable[[int], list[Row]]]] = {
    "session-single": session_single,
    "session-crowd": session_crowd,
}
