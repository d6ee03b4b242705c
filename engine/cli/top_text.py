"""What `rlpx-ctl top` shows, as text of a given width. Peers choose names and causes: all of it is text, never markup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import time
from typing import Any, Final

import msgspec
from rich.cells import set_cell_size
from rich.text import Text

from rlpx.engine.cli.ctl_text import duration, size
from rlpx.engine.overview.ends import End
from rlpx.engine.overview.overview import Overview
from rlpx.engine.overview.sessions import SessionRow
from rlpx.engine.overview.workers import WorkerRow

NONE: Final = "-"
SOFT: Final = "dim"
# Blue and orange are told apart by people with any colour blindness; an arrow says the same.
IN: Final = "#5aaef0"
OUT: Final = "#f2a14a"
_BARS: Final = " ▁▂▃▄▅▆▇█"
_US: Final = 1_000_000
_LAG_COLUMNS: Final = 14
_LARGE: Final = 100


class Column(msgspec.Struct, frozen=True):
    """A column of the sessions: its heading, its width, what it shows, and the key of `SORTS` by which it sorts."""

    name: str
    width: int
    text: Callable[[SessionRow], str]
    sort: str
    is_right: bool = False


def rate(value: float | None) -> str:
    """A number per second."""
    if value is None:
        return NONE
    return f"{value:.0f}" if value >= _LARGE or value == int(value) else f"{value:.1f}"


def volume(value: float | None) -> str:
    """Bytes, or bytes per second."""
    return NONE if value is None else size(round(value))


def milliseconds(value: float | None) -> str:
    """A latency."""
    if value is None:
        return NONE
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"  # noqa: PLR2004 - two digits


def clock(time_us: int) -> str:
    """The time of day, in UTC as in the log."""
    return datetime.fromtimestamp(time_us / _US, UTC).strftime("%H:%M:%S")


def client(row: SessionRow | End) -> str:
    """Family and version; the whole name if it has no version."""
    name = row.client
    return f"{name.family} {name.version}" if name.version else name.text


def _client_or_stage(row: SessionRow) -> str:
    return client(row) or (f"({row.stage})" if row.phase == "pending" else NONE)


COLUMNS: Final[tuple[Column, ...]] = (
    Column("session", 8, lambda row: str(row.session), "session", is_right=True),
    Column("way", 4, lambda row: "in" if row.direction == "inbound" else "out", "direction"),
    Column("client", 26, _client_or_stage, "client"),
    Column("address", 22, lambda row: row.remote, "remote"),
    Column("peer", 10, lambda row: row.peer[:10] or NONE, "peer"),
    Column("shares", 13, lambda row: " ".join(row.shared) or NONE, "shared"),
    Column("age", 10, lambda row: duration(max(0.0, time() - row.opened_us / _US)), "age", is_right=True),
    Column("rtt", 8, lambda row: milliseconds(row.rtt_ms), "rtt", is_right=True),
    Column("in/s", 9, lambda row: volume(row.rate_in), "rate_in", is_right=True),
    Column("out/s", 9, lambda row: volume(row.rate_out), "rate_out", is_right=True),
    Column("msgs in", 8, lambda row: str(row.messages_in), "messages_in", is_right=True),
    Column("msgs out", 8, lambda row: str(row.messages_out), "messages_out", is_right=True),
)
# What a narrow terminal leaves out, the first of these first.
_LEFT_OUT: Final = ("msgs out", "msgs in", "peer", "shares", "rtt", "age", "out/s", "in/s")


def fitting(width: int) -> tuple[Column, ...]:
    """The columns that fit into this width."""
    columns = COLUMNS
    for name in _LEFT_OUT:
        if sum(column.width + 1 for column in columns) <= width:
            break
        columns = tuple(column for column in columns if column.name != name)
    return columns


def cell(text: str, width: int, *, is_right: bool = False) -> str:
    """A text in exactly this many columns of the terminal, whatever the width of its characters."""
    if is_right and len(text) < width:
        text = text.rjust(width)
    return set_cell_size(text, width)


def heading(columns: Sequence[Column], sort: str, *, is_descending: bool) -> Text:
    """The headings of the sessions; an arrow marks the one that sorts."""
    text = Text(no_wrap=True)
    for column in columns:
        mark = ("↓" if is_descending else "↑") if column.sort == sort else ""
        text.append(cell(column.name + mark, column.width, is_right=column.is_right), "bold" if mark else SOFT)
        text.append(" ")
    return text


def session_line(columns: Sequence[Column], row: SessionRow, *, is_chosen: bool) -> Text:
    """One session."""
    text = Text(no_wrap=True, style="reverse" if is_chosen else "")
    for column in columns:
        style = ""
        if column.name == "way":
            style = IN if row.direction == "inbound" else OUT
        text.append(cell(column.text(row), column.width, is_right=column.is_right), style)
        text.append(" ")
    return text


def summary(overview: Overview, *, now: float) -> Text:
    """Two lines: the sessions against their limits, and the rates."""
    phases, last = overview.sessions.phases, overview.history.last()
    limits = (overview.status or {}).get("counts", {}).get("limits", {})
    text = Text(no_wrap=True)

    def part(name: str, value: str, note: str = "") -> None:
        text.append(f"{name} ", SOFT)
        text.append(value, "bold")
        text.append(f" {note}   " if note else "   ", SOFT)

    part("inbound", str(phases["active", "inbound"]), f"of {limits.get('max_active_inbound', NONE)}")
    part("outbound", str(phases["active", "outbound"]), f"of {limits.get('max_active_outbound', NONE)}")
    part("in handshake", f"{phases['pending', 'inbound']} in {phases['pending', 'outbound']} out")
    latencies = overview.handshakes.latencies(now=now)
    part("handshake", milliseconds(latencies.p50_ms), f"99% {milliseconds(latencies.p99_ms)}")
    text.append("\n")
    part("messages/s", f"{rate(last['messages_in'])} in {rate(last['messages_out'])} out")
    part("traffic/s", f"{volume(last['bytes_in'])} in {volume(last['bytes_out'])} out")
    part("opened/s", rate(last["opened"]))
    part("ended/s", rate(last["ended"]))
    if overview.counts["missed"]:
        part("events missed", str(overview.counts["missed"]))
    return text


def state_line(overview: Overview, *, now: float, width: int) -> Text:
    """The first line: what it is, and whether it is current."""
    status = overview.status
    text = Text(no_wrap=True)
    if status is not None:
        chain = status["chain"]["name"]
        text.append(f"rlpx-engine {status['version']}", "bold")
        text.append(f"  {chain}  up {duration(status['uptime_ms'] / 1000)}  node {status['node_id'][:16]}  ", SOFT)
        _append_fleet(text, status.get("fleet"))
    age = overview.age_seconds(now=now)
    if overview.cause or (age is not None and overview.is_stale(now=now)):
        since = "" if age is None else f" for {duration(age)}"
        text.append(f"NO ANSWER{since}: {overview.cause or 'the engine is silent'}", "bold red")
    elif age is None:
        text.append("connecting", SOFT)
    else:
        text.append("live", "bold green")
    text.truncate(width)
    return text


def _append_fleet(text: Text, fleet: dict[str, Any] | None) -> None:
    """The membership of a host; an engine alone has none."""
    if fleet is None:
        return
    text.append(f"{fleet['host']} of {fleet['name']}, ", SOFT)
    if fleet["state"] == "member":
        text.append(f"{len(fleet['hosts'])} hosts  ", SOFT)
    else:
        away = f"NO NATS for {duration(fleet['away_ms'] / 1000)}" if fleet["state"] == "away" else "DOUBTFUL"
        text.append(f"{away}  ", "bold red")


def sparkline(values: Sequence[float | None], width: int) -> str:
    """The last values as bars, each a column wide; what is not known is blank."""
    shown = values[-width:]
    most = max((value for value in shown if value is not None), default=0) or 1
    bars = [" " if value is None else _BARS[round(value / most * (len(_BARS) - 1))] for value in shown]
    return "".join(bars).rjust(width)


def worker_lines(workers: Sequence[WorkerRow], most: int) -> Text:
    """One line for each worker, up to `most`."""
    widths = (6, 9, 8, _LAG_COLUMNS, 5, 10, 21)
    names = ("worker", "sessions", "lag", "last minute", "cpu", "memory", "in progress")
    text = Text(no_wrap=True)
    text.append(" ".join(cell(name, width) for name, width in zip(names, widths, strict=True)), SOFT)
    for worker in workers[:most]:
        progress = f"{volume(worker.progress_bytes)} of {volume(worker.progress_limit_bytes)}"
        cells = (
            f"{worker.worker}" if worker.ready else f"{worker.worker} …",
            f"{worker.active}" + (f"+{worker.pending}" if worker.pending else ""),
            milliseconds(worker.loop_lag_ms),
            sparkline(worker.lags, _LAG_COLUMNS),
            NONE if worker.cpu is None else f"{worker.cpu * 100:.0f} %",
            volume(worker.memory_bytes),
            progress,
        )
        text.append("\n" + " ".join(cell(item, width) for item, width in zip(cells, widths, strict=True)))
    if len(workers) > most:
        text.append(f"\n… and {len(workers) - most} more", SOFT)
    return text


def kind_lines(overview: Overview, most: int) -> Text:
    """The most frequent messages, with their rates."""
    text = Text(no_wrap=True)
    text.append(f"{cell('messages per second', 32)}{'in':>8}{'out':>8}", SOFT)
    for kind in overview.traffic.kinds()[:most]:
        name = cell(f"{kind.capability} {kind.message}", 32)
        text.append(f"\n{name}{rate(kind.in_per_s):>8}{rate(kind.out_per_s):>8}")
    return text


def end_line(end: End, width: int) -> Text:
    """One end: when, which session, whose, who ended it and why."""
    number = NONE if end.session is None else str(end.session)
    text = Text(no_wrap=True)
    text.append(f"{clock(end.time_us)} ", SOFT)
    text.append(f"{cell(number, 8, is_right=True)} {cell(client(end) or NONE, 24)} {cell(end.remote, 22)} ")
    text.append(f"{end.ended_by} {end.reason.replace('_', ' ')} ", "bold")
    text.append(f"at {end.stage}: {end.cause}", SOFT)
    text.truncate(width, overflow="ellipsis")
    return text
