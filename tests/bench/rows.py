"""The rows: one function for each group of them, which measures our side and the other by turns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic, sleep
from typing import Final

import msgspec

from tests.bench import sides
from tests.bench.reckoning import Goal, Row, cpu_nanoseconds
from tests.bench.sides import BenchError, InFleet, Ours, Side

# Sessions in one repeat: half a second's work.
SESSIONS: Final = 400
# Handshakes of a crowd at a time: fewer than go-ethereum's 50 pending peers.
CROWD: Final = 32
WARM_SESSIONS: Final = 50
# The cost of a session in a fleet: as many handshakes per second and core as 95 % of those of an engine alone.
FLEET_SHARE: Final = 1.053
# Sessions that send at the same time.
SENDERS: Final = 16
# Messages in one repeat on each of them: half a second's work.
MESSAGES: Final = {64: 2000, 1024: 1000, 16 * 1024: 100, 128 * 1024: 20}
# Sessions that one writer goes round, and the number of rounds in one repeat.
ROUND_SESSIONS: Final = 1000
ROUNDS: Final = {64: 20, 1024: 20, 16 * 1024: 4, 128 * 1024: 1}
# How often the messages that have arrived are counted before a repeat is given up, once in each `SETTLE_SECONDS`.
ARRIVAL_LOOKS: Final = 25
# With one reader, by size.
READ_GOALS: Final = {64: 1.1, 1024: 1.1, 16 * 1024: 1.05, 128 * 1024: 1.0}
# The number of peers that get a broadcast; the size of its messages, their number in one repeat, and the goal.
AUDIENCE: Final = 500
BROADCASTS: Final = ((1024, 20, 1.2), (100 * 1024, 2, 1.0))
BURST_SESSIONS: Final = 2000
BURST_FRAMES: Final = 50
BURST_HASHES: Final = 10
BURST_SECONDS: Final = 1.0
# Each peer sends its frames in this many segments over that time.
BURST_SLICES: Final = 5
# Workers report their loop lag once a second.
PULSE_SECONDS: Final = 1.1
LAG_STEP_SECONDS: Final = 0.25
IDLE_SESSIONS: Final = 5000
MEMORY_WORKERS: Final = 2
LATENCY_BYTES: Final = 1024
LATENCY_SECONDS: Final = 5.0
# The kinds of `tests/system/flood.py` that a peer may send as fast as it can: a flood of pings or pongs ends at once.
FLOOD_KINDS: Final = (
    "Transactions-64",
    "Transactions-16384",
    "NewPooledTransactionHashes",
    "BlockRangeUpdate",
    "GetBlockHeaders",
    "GetBlockBodies",
    "GetPooledTransactions",
    "GetReceipts",
    "GetBlockAccessLists",
    "GetCells",
)
FLOOD_SECONDS: Final = 2.0
FLOOD_SETTLE_SECONDS: Final = 0.5
FORGED_AUTHS: Final = 500
HELD_SESSIONS: Final = 10_000
HELD_WORKERS: Final = 4
HELD_SECONDS: Final = 600.0
# The wait before memory is first measured, after which every session has had its first ping.
HELD_SETTLE_SECONDS: Final = 30.0
HELD_STEP_SECONDS: Final = 20.0


def session_single(repeats: int) -> list[Row]:
    """Inbound sessions, one after the other."""
    return _sessions(repeats, 1, "one by one")


def session_crowd(repeats: int) -> list[Row]:
    """Inbound sessions, many at a time."""
    return _sessions(repeats, CROWD, f"{CROWD} at a time")


def _sessions(repeats: int, in_flight: int, words: str) -> list[Row]:
    """From accept to established, and on to the end, which the peer causes; one reader of `session.`."""
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
    """Microseconds of all parts, divided by a count."""
    return (sum(end.values()) - sum(start.values())) / count / 1000


def fleet(repeats: int) -> list[Row]:
    """Inbound sessions of a host of a fleet, on one NATS server and on three, against the same engine alone."""
    rows: list[Row] = []
    with ExitStack() as stack:
        alone = stack.enter_context(sides.ours("session."))
        fleets = {count: stack.enter_context(sides.in_fleet("session.", servers=count)) for count in (1, 3)}
        for side in (alone, *(fleet.side for fleet in fleets.values())):
            side.load.order("open", count=WARM_SESSIONS, in_flight=CROWD)
            side.load.order("leave", in_flight=CROWD)
        for in_flight, words in ((1, "one by one"), (CROWD, f"{CROWD} at a time")):
            found = {count: FleetCost() for count in fleets}
            for _ in range(repeats):
                for count, fleet in fleets.items():
                    _compare(alone, fleet, in_flight, found[count])
            for count, cost in found.items():
                rows += cost.rows(f"{words}, {count} NATS server" + ("s" if count > 1 else ""))
    return rows


class FleetCost(msgspec.Struct):
    """Microseconds of CPU of a session with its end and milliseconds from auth to Status, in a fleet and alone."""

    cpu: tuple[list[float], list[float]] = msgspec.field(default_factory=lambda: ([], []))
    median: tuple[list[float], list[float]] = msgspec.field(default_factory=lambda: ([], []))
    slowest: tuple[list[float], list[float]] = msgspec.field(default_factory=lambda: ([], []))
    # Of the NATS servers alone.
    servers: list[float] = []

    def rows(self, words: str) -> list[Row]:
        """A row for each figure."""
        later = [ours - alone for ours, alone in zip(*self.slowest, strict=True)]
        return [
            Row(f"CPU per session of a fleet against one alone, {words}", "µs", *self.cpu, Goal(FLEET_SHARE)),
            Row("  the NATS servers beside it", "µs", self.servers),
            Row("  from auth to Status, median", "ms", *self.median),
            Row("  99th percentile", "ms", *self.slowest),
            Row("  99th percentile, later than alone", "ms", later, goal=Goal(2, is_ratio=False)),
        ]


def _compare(alone: Ours, fleet: InFleet, in_flight: int, cost: FleetCost) -> None:
    """One turn of the engine in a fleet, and one of the engine alone."""
    for index, side in enumerate((fleet.side, alone)):
        before, servers = side.cpu(), cpu_nanoseconds(fleet.servers)
        opened = side.load.order("open", count=SESSIONS, in_flight=in_flight)
        side.load.order("leave", in_flight=in_flight)
        cost.cpu[index].append(_spent(before, side.cpu(), SESSIONS))
        cost.median[index].append(opened["p50_ms"])
        cost.slowest[index].append(opened["p99_ms"])
        if side is fleet.side:
            cost.servers.append((cpu_nanoseconds(fleet.servers) - servers) / SESSIONS / 1000)


def messages(repeats: int) -> list[Row]:
    """Inbound messages, one reader that counts them."""
    goals = {64: 1.5, 1024: 1.3, 16 * 1024: 1.1, 128 * 1024: 1.05}
    return _messages(repeats, goals, "eth.")


def feed(repeats: int) -> list[Row]:
    """Inbound messages, one program that counts them by a feed."""
    return _messages(repeats, READ_GOALS, "eth.", is_feed=True)


def unread(repeats: int) -> list[Row]:
    """Inbound messages that nobody reads."""
    goals = {64: 1.1, 1024: 1.15, 16 * 1024: 1.0, 128 * 1024: 1.0}
    return _messages(repeats, goals)


def _words(*topics: str, is_feed: bool) -> str:
    return "one feed" if is_feed else "one subscriber" if topics else "no subscriber"


def _messages(repeats: int, goals: dict[int, float], *topics: str, is_feed: bool = False) -> list[Row]:
    """Messages from several peers at once. They are sealed beforehand, so that the load is always faster than the server."""
    rows: list[Row] = []
    words = _words(*topics, is_feed=is_feed)
    with sides.ours(*topics, is_feed=is_feed) as ours, sides.geth() as theirs:
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
                    if repeat:  # the first one only warms up buffers
                        values.append(_spent(before[1], after, count))
            rows.append(Row(f"CPU per message of {size:,} B, {words}", "µs", spent[ours], spent[theirs], Goal(goals[size])))
    return rows


def lone(repeats: int) -> list[Row]:
    """Inbound messages that nobody reads, each in a read of its own."""
    return _lone(repeats, dict.fromkeys(ROUNDS, 1.0))


def lone_read(repeats: int) -> list[Row]:
    """Inbound messages with one reader that counts them, each in a read of its own."""
    return _lone(repeats, READ_GOALS, "eth.")


def lone_feed(repeats: int) -> list[Row]:
    """Inbound messages with one program that counts them by a feed, each in a read of its own."""
    return _lone(repeats, READ_GOALS, "eth.", is_feed=True)


def _lone(repeats: int, goals: dict[int, float], *topics: str, is_feed: bool = False) -> list[Row]:
    """One writer goes round many sessions, and begins a round when the messages of the last one have been read."""
    rows: list[Row] = []
    words = _words(*topics, is_feed=is_feed)
    with sides.ours(*topics, is_feed=is_feed) as ours, sides.geth() as theirs:
        both: tuple[Side, Side] = (ours, theirs)
        for side in both:
            side.load.order("open", count=ROUND_SESSIONS, in_flight=CROWD)
        for size, rounds in ROUNDS.items():
            count = ROUND_SESSIONS * rounds
            spent: dict[Side, list[float]] = {side: [] for side in both}
            for repeat in range(repeats + 1):
                for side, values in spent.items():
                    arrived, before = side.messages(), side.cpu()
                    side.load.order("round", count=rounds, size=size)
                    if topics:
                        side.await_read(count)
                    after = _cpu_after(side, arrived + count)
                    if repeat:  # the first one only warms up buffers
                        values.append(_spent(before, after, count))
            name = f"CPU per lone message of {size:,} B, {words}"
            rows.append(Row(name, "µs", spent[ours], spent[theirs], Goal(goals[size])))
    return rows


def _cpu_after(side: Side, total: int) -> dict[str, int]:
    """The CPU used once the server has taken this many messages: on a busy machine the last ones take a while."""
    for _ in range(ARRIVAL_LOOKS):
        used = side.cpu()
        arrived = side.messages()
        if arrived >= total:
            return used
    raise BenchError(f"{total - arrived} of the messages have not arrived")


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
    """Announcements from very many peers within a second: how many are lost, and how late the worker's loop is meanwhile.

    The lag is the worst lateness of the loop's 100 ms timer, as `status` shows it for each second.
    """
    lost: list[float] = []
    lags: list[float] = []
    with sides.ours("eth.NewPooledTransactionHashes") as ours:
        ours.load.order("open", count=BURST_SESSIONS, in_flight=CROWD)
        for _ in range(repeats):
            ours.load.order("hold", kind="announcements", count=BURST_FRAMES, size=BURST_HASHES)
            sleep(2 * PULSE_SECONDS)  # the lag until now belongs to other work
            ours.reader.order("await", count=0)
            reading = ours.reader.begin("await", count=BURST_SESSIONS * BURST_FRAMES)
            release = ours.load.begin("release", slices=BURST_SLICES, seconds=BURST_SECONDS)
            lag, ends_at = 0.0, monotonic() + PULSE_SECONDS
            while monotonic() < ends_at:
                lag = max(lag, ours.loop_lag_ms())
                sleep(LAG_STEP_SECONDS)
                if ours.load.answer(release) is None or ours.reader.answer(reading) is None:
                    ends_at = monotonic() + PULSE_SECONDS  # the worker's next report still covers the burst
            lags.append(lag)
            read = ours.reader.answer(reading)
            lost.append(float(BURST_SESSIONS * BURST_FRAMES - (read or {"count": 0})["count"]))
    words = f"{BURST_SESSIONS:,} peers x {BURST_FRAMES} frames of {BURST_HASHES} hashes"
    return [
        Row(f"announcements lost, {words}", "events", lost, goal=Goal(0, is_ratio=False)),
        Row("  worst loop lag meanwhile", "ms", lags, goal=Goal(50, is_ratio=False)),
    ]


def memory(repeats: int) -> list[Row]:
    """Resident memory of idle sessions. Each repeat has fresh processes, because freed memory may stay resident."""
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
    """The same crowd on one, two and four workers: the cost of a session should be the same."""
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
    """The time from the load's stamp before sealing until the reader has the event, at half of what one worker carries."""
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
            # Counting sent messages would include those that are still in the kernel's buffers.
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
    """Very many sessions for a long time: pings go both ways, no session is lost, memory does not grow."""
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


def cost_per_byte(repeats: int) -> list[Row]:
    """The cost, per byte, of one peer that sends one kind of message as fast as it is read."""
    found: dict[str, list[float]] = {kind: [] for kind in FLOOD_KINDS}
    forged: list[float] = []
    with sides.ours() as ours:
        for _ in range(repeats):
            for kind, values in found.items():
                with sides.flooding(ours, kind, FLOOD_SECONDS + FLOOD_SETTLE_SECONDS + 1.0):
                    sleep(FLOOD_SETTLE_SECONDS)
                    before = ours.cpu(), ours.bytes_in()
                    sleep(FLOOD_SECONDS)
                    after = ours.cpu(), ours.bytes_in()
                taken = after[1] - before[1]
                if taken <= 0:
                    raise BenchError(f"nothing was taken of a peer that sends {kind}")
                values.append((sum(after[0].values()) - sum(before[0].values())) / taken)
            start = ours.cpu()
            sent = sides.forge_auths(ours, FORGED_AUTHS)
            forged.append((sum(ours.cpu().values()) - sum(start.values())) / sent)
    rows = [Row(f"CPU per byte that a peer sends, {kind}", "ns", values) for kind, values in found.items()]
    return [*rows, Row("CPU per byte that a stranger sends, forged auth and its connection", "ns", forged)]


GROUPS: Final[dict[str, Callable[[int], list[Row]]]] = {
    "session-single": session_single,
    "session-crowd": session_crowd,
    "fleet": fleet,
    "messages": messages,
    "unread": unread,
    "lone": lone,
    "lone-read": lone_read,
    "feed": feed,
    "lone-feed": lone_feed,
    "broadcast": broadcast,
    "burst": burst,
    "memory": memory,
    "workers": workers,
    "latency": latency,
    "cost-per-byte": cost_per_byte,
}
# Rows that take long are measured only on request.
LONG: Final[dict[str, Callable[[int], list[Row]]]] = {"held": held}
