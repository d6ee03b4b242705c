"""What is measured: a function a group of rows, each with the repeats it is to take, ours and theirs by turns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic, sleep
from typing import Final

from tests.bench import sides
from tests.bench.reckoning import Goal, Row
from tests.bench.sides import BenchError, Side

# Sessions of a repeat: half a second's work.
SESSIONS: Final = 400
# Handshakes of a crowd at a time; fewer than go-ethereum's 50 pending peers.
CROWD: Final = 32
WARM_SESSIONS: Final = 50
# Sessions that send at the same time.
SENDERS: Final = 16
# Messages of a repeat on each of them: half a second's work.
MESSAGES: Final = {64: 2000, 1024: 1000, 16 * 1024: 100, 128 * 1024: 20}
# Who gets a broadcast; the size of its messages, how many in a repeat, and the goal.
AUDIENCE: Final = 500
BROADCASTS: Final = ((1024, 20, 1.2), (100 * 1024, 2, 1.0))
BURST_SESSIONS: Final = 2000
BURST_FRAMES: Final = 50
BURST_HASHES: Final = 10
BURST_SECONDS: Final = 1.0
# Each peer sends its frames in so many segments over that time.
BURST_SLICES: Final = 5
# Workers tell their loop lag once a second.
PULSE_SECONDS: Final = 1.1
LAG_STEP_SECONDS: Final = 0.25
IDLE_SESSIONS: Final = 5000
MEMORY_WORKERS: Final = 2
LATENCY_BYTES: Final = 1024
LATENCY_SECONDS: Final = 5.0
HELD_SESSIONS: Final = 10_000
HELD_WORKERS: Final = 4
HELD_SECONDS: Final = 600.0
# Before memory is first looked at: every session has had its first ping.
HELD_SETTLE_SECONDS: Final = 30.0
HELD_STEP_SECONDS: Final = 20.0


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


def messages(repeats: int) -> list[Row]:
    """Inbound messages, one reader that counts them."""
    goals = {64: 1.5, 1024: 1.3, 16 * 1024: 1.1, 128 * 1024: 1.05}
    return _messages(repeats, ["eth."], "one subscriber", goals)


def unread(repeats: int) -> list[Row]:
    """Inbound messages that nobody reads."""
    goals = {64: 1.1, 1024: 1.15, 16 * 1024: 1.0, 128 * 1024: 1.0}
    return _messages(repeats, [], "no subscriber", goals)


def _messages(repeats: int, topics: list[str], words: str, goals: dict[int, float]) -> list[Row]:
    """From several peers at once, sealed before, so that the load is always faster than the server."""
    rows: list[Row] = []
    with sides.ours(*topics) as ours, sides.geth() as theirs:
        both: tuple[Side, Side] = (ours, theirs)
        for side in both:
            side.load.order("open", count=SENDERS, in_flight=SENDERS)
        for size, each in MESSAGES.items():
            count = SENDERS * each
            spent: dict[Side, list[float]] = {side: [] for side in both}
            for repeat in range(repeats + 1):
                for side, values in spent.items():
                    side.load.order("hold", count=each, size=size)
                    before = side.messages(), side.cpu()
                    side.load.order("release")
                    if topics:
                        side.await_read(count)
                    after = side.cpu()
                    arrived = side.messages() - before[0]
                    if arrived < count:
                        raise BenchError(f"{arrived} of {count} messages arrived")
                    if repeat:  # the first warms buffers up
                        values.append(_spent(before[1], after, count))
            rows.append(Row(f"CPU per message of {size:,} B, {words}", "µs", spent[ours], spent[theirs], Goal(goals[size])))
    return rows


def broadcast(repeats: int) -> list[Row]:
    """One message to many peers."""
    rows: list[Row] = []
    with sides.ours() as ours, sides.geth() as theirs:
        both: tuple[Side, Side] = (ours, theirs)
        for side in both:
            side.load.order("open", count=AUDIENCE, in_flight=CROWD)
        sent = 0
        for size, each, goal in BROADCASTS:
            spent: dict[Side, list[float]] = {side: [] for side in both}
            for repeat in range(repeats + 1):
                sent += each * AUDIENCE
                for side, values in spent.items():
                    before = side.cpu()
                    side.broadcast(size, each)
                    side.load.order("await", count=sent)
                    if repeat:
                        values.append(_spent(before, side.cpu(), each * AUDIENCE))
            name = f"CPU per peer of a broadcast of {size:,} B to {AUDIENCE}"
            rows.append(Row(name, "µs", spent[ours], spent[theirs], Goal(goal)))
    return rows


def burst(repeats: int) -> list[Row]:
    """Announcements from very many peers within a second: what is lost, and how late the worker's loop is meanwhile.

    The lag is the worst lateness of the loop's 100 ms timer, as `status` shows it for each second.
    """
    lost: list[float] = []
    lags: list[float] = []
    with sides.ours("eth.NewPooledTransactionHashes") as ours:
        ours.load.order("open", count=BURST_SESSIONS, in_flight=CROWD)
        for _ in range(repeats):
            ours.load.order("hold", kind="announcements", count=BURST_FRAMES, size=BURST_HASHES)
            sleep(2 * PULSE_SECONDS)  # the lag until now is another's
            ours.reader.order("await", count=0)
            reading = ours.reader.begin("await", count=BURST_SESSIONS * BURST_FRAMES)
            release = ours.load.begin("release", slices=BURST_SLICES, seconds=BURST_SECONDS)
            lag, ends_at = 0.0, monotonic() + PULSE_SECONDS
            while monotonic() < ends_at:
                lag = max(lag, ours.loop_lag_ms())
                sleep(LAG_STEP_SECONDS)
                if ours.load.answer(release) is None or ours.reader.answer(reading) is None:
                    ends_at = monotonic() + PULSE_SECONDS  # what the worker tells next is still of the burst
            lags.append(lag)
            read = ours.reader.answer(reading)
            lost.append(float(BURST_SESSIONS * BURST_FRAMES - (read or {"count": 0})["count"]))
    words = f"{BURST_SESSIONS:,} peers x {BURST_FRAMES} frames of {BURST_HASHES} hashes"
    return [
        Row(f"announcements lost, {words}", "events", lost, goal=Goal(0, is_ratio=False)),
        Row("  worst loop lag meanwhile", "ms", lags, goal=Goal(50, is_ratio=False)),
    ]


def memory(repeats: int) -> list[Row]:
    """Resident memory of idle sessions; each repeat on fresh processes, as what was freed may stay resident."""
    found: dict[str, list[float]] = {"ours": [], "geth": []}
    for _ in range(repeats):
        for name, values in found.items():
            with sides.ours(workers=MEMORY_WORKERS) if name == "ours" else sides.geth() as side:
                side.load.order("open", count=WARM_SESSIONS, in_flight=CROWD)
                before = side.resident()
                side.load.order("open", count=IDLE_SESSIONS, in_flight=CROWD)
                side.load.order("ping")
                values.append((side.resident() - before) / IDLE_SESSIONS / 1024)
    name = f"memory per idle session at {IDLE_SESSIONS:,}"
    return [Row(name, "KiB", found["ours"], found["geth"], Goal(16, is_ratio=False))]


def workers(repeats: int) -> list[Row]:
    """The same crowd on one, two and four workers: what a session costs is to be the same."""
    with ExitStack() as stack:
        fleets = {count: stack.enter_context(sides.ours("session.", workers=count)) for count in (1, 2, 4)}
        spent: dict[int, list[float]] = {count: [] for count in fleets}
        for repeat in range(repeats + 1):
            for count, side in fleets.items():
                before = side.cpu()
                side.load.order("open", count=SESSIONS, in_flight=CROWD)
                after = side.cpu()
                side.load.order("leave", in_flight=CROWD)
                if repeat:
                    spent[count].append(_spent(before, after, SESSIONS))
    return [
        Row(f"CPU per inbound session, {count} workers against 1", "µs", spent[count], spent[1], Goal(1.05))
        for count in (2, 4)
    ]


def latency(repeats: int) -> list[Row]:
    """From the load's stamp before sealing to the reader's hands, at half of what one worker carries."""
    median: list[float] = []
    worst: list[float] = []
    with sides.ours("eth.") as ours:
        ours.load.order("open", count=SENDERS, in_flight=SENDERS)
        count = SENDERS * MESSAGES[LATENCY_BYTES]
        for _ in range(repeats):
            ours.load.order("hold", count=MESSAGES[LATENCY_BYTES], size=LATENCY_BYTES)
            start = monotonic()
            ours.load.order("release")
            ours.await_read(count)
            # Sent alone would count what the kernel's buffers hold as carried.
            rate = count / (monotonic() - start)
            ours.reader.order("delays")
            sent = ours.load.order("pace", rate=rate / 2, seconds=LATENCY_SECONDS, size=LATENCY_BYTES)["sent"]
            ours.await_read(sent)
            delays = ours.reader.order("delays")
            median.append(delays["p50"])
            worst.append(delays["p99"])
    return [
        Row(f"wire to subscriber, {LATENCY_BYTES:,} B at half load, median", "ms", median),
        Row("  99th percentile", "ms", worst, goal=Goal(5, is_ratio=False)),
    ]


def held(_repeats: int) -> list[Row]:
    """Very many sessions for a long time: pings go both ways, none is lost, memory stays."""
    with sides.ours("session.closed", workers=HELD_WORKERS) as ours:
        ours.load.order("open", count=HELD_SESSIONS, in_flight=CROWD)
        sleep(HELD_SETTLE_SECONDS)
        before = ours.resident()
        ends_at = monotonic() + HELD_SECONDS
        while monotonic() < ends_at:
            sleep(HELD_STEP_SECONDS)
            ours.load.order("ping")
        after = ours.resident()
        closed = ours.reader.order("await", count=0)["count"]
        lost = max(closed, HELD_SESSIONS - ours.sessions())
    words = f"{HELD_SESSIONS:,} sessions on {HELD_WORKERS} workers for {HELD_SECONDS / 60:g} minutes"
    return [
        Row(f"{words}, lost", "sessions", [float(lost)], goal=Goal(0, is_ratio=False)),
        Row(
            "  memory at the end against the start",
            "KiB each",
            [after / HELD_SESSIONS / 1024],
            [before / HELD_SESSIONS / 1024],
            Goal(1.02),
        ),
    ]


GROUPS: Final[dict[str, Callable[[int], list[Row]]]] = {
    "session-single": session_single,
    "session-crowd": session_crowd,
    "messages": messages,
    "unread": unread,
    "broadcast": broadcast,
    "burst": burst,
    "memory": memory,
    "workers": workers,
    "latency": latency,
}
# What takes long is measured only where it is asked for.
LONG: Final[dict[str, Callable[[int], list[Row]]]] = {"held": held}
