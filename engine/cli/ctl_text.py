"""Shows the answers of commands to people: lines of fields, and tables of bounded width.

Peers choose much of the text: it is shortened, and it cannot move the cursor or begin a line. The unit in a field's name
(`_ms`, `_s`, `_us`, `_bytes`) decides how it is shown, so that the fields of a newer engine are shown as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

from rlpx.engine.cli.terminal import shown
from rlpx.protocol.wording import shortened

# The width of a table's cell: with it, a line of `sessions` has about 120 characters.
CELL_CHARACTERS: Final = 32
# A value on a line of its own: an enode has 165 characters.
VALUE_CHARACTERS: Final = 256
# The part of an id or a hash that tells it from others.
ID_CHARACTERS: Final = 16
_UNITS: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_SECONDS: Final = ((86_400, "d"), (3600, "h"), (60, "min"))

Row = dict[str, Any]


def as_text(command: str, result: Any) -> str:  # noqa: ANN401 - any JSON value
    """The answer of this command as text."""
    view = _VIEWS.get(command, _fields)
    return view(result)


# -- values -----------------------------------------------------------------------------------------------------------------


def value(name: str, item: Any, max_characters: int = VALUE_CHARACTERS) -> str:  # noqa: ANN401 - any JSON value
    """One value, with the unit in its field's name."""
    if isinstance(item, int | float) and not isinstance(item, bool):
        return _number(name, item)
    return shortened(shown(item), max_characters)


def _number(name: str, number: float) -> str:
    if name.endswith("_bytes") or name in {"bytes_in", "bytes_out"}:
        text = size(number)
    elif name.endswith("_us"):
        text = datetime.fromtimestamp(number / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    elif name in {"uptime_ms", "duration_ms"}:
        text = duration(number / 1000)
    elif name.endswith("_ms"):
        text = f"{number:.3g} ms" if number < 1 else f"{number:.0f} ms"
    elif name.endswith("_s") or name == "seconds":
        text = duration(number)
    else:
        text = str(number) if number == int(number) else f"{number:.3g}"
    return text


def size(count: float) -> str:
    """Bytes in the largest unit that gives at least one."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:g} B"


def duration(seconds: float) -> str:
    """A time in its two largest units; below a minute in seconds."""
    for index, (unit, name) in enumerate(_SECONDS):
        if seconds >= unit:
            smaller, smaller_name = (*_SECONDS, (1, "s"))[index + 1]
            return f"{int(seconds // unit)} {name} {int(seconds % unit // smaller)} {smaller_name}"
    return f"{seconds:.1f} s" if seconds < 10 and seconds != int(seconds) else f"{int(seconds)} s"  # noqa: PLR2004 - one digit


def label(name: str) -> str:
    """A field's name as a heading."""
    for unit in ("_bytes", "_ms", "_us", "_s"):
        name = name.removesuffix(unit)
    return name.replace("_", " ")


# -- layout -----------------------------------------------------------------------------------------------------------------


def lines(pairs: Iterable[tuple[str, str]]) -> str:
    """One name and its value per line."""
    found = list(pairs)
    width = max((len(name) for name, _ in found), default=0)
    return "".join(f"{name:<{width}}  {text}".rstrip() + "\n" for name, text in found)


def table(rows: list[list[str]]) -> str:
    """A table whose first row has the headings; each column is as wide as its widest cell."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def _rows(items: list[Row], columns: list[str]) -> str:
    """A table of these columns. A heading includes its unit if another heading would be the same without it."""
    labels = Counter(map(label, columns))
    headings = [label(name) if labels[label(name)] == 1 else name.replace("_", " ") for name in columns]
    return table([headings, *([_cell(name, item.get(name)) for name in columns] for item in items)])


# The cause of an end is a sentence; it stands in the last column.
_WIDE: Final = {"cause": 60, "last_end": 60}


def _cell(name: str, item: Any) -> str:  # noqa: ANN401 - any JSON value
    if name == "peer":
        return shown(item)[:ID_CHARACTERS]
    if name == "time_us" and item is not None:
        return datetime.fromtimestamp(item / 1_000_000, UTC).strftime("%H:%M:%S")
    return value(name, item, _WIDE.get(name, CELL_CHARACTERS))


def _pairs(result: Row, before: str = "") -> Iterable[tuple[str, str]]:
    """The fields with their values; a field of an inner table has both names."""
    for name, item in result.items():
        if isinstance(item, dict) and item:
            yield from _pairs(item, f"{before}{label(name)} ")
        else:
            yield before + label(name), "-" if item == {} else value(name, item)


def _fields(result: Any) -> str:  # noqa: ANN401 - any JSON value
    return lines(_pairs(result)) if isinstance(result, dict) else shown(result) + "\n"


# -- commands ---------------------------------------------------------------------------------------------------------------


def _status(result: Row) -> str:
    rest = {name: item for name, item in result.items() if name not in {"workers", "counts"}}
    text = lines(_pairs(rest))
    if result.get("counts"):
        text += "\n" + _counts(result["counts"])
    workers = result.get("workers") or []
    if workers:
        inner = [name for name in workers[0] if any(isinstance(worker.get(name), dict) for worker in workers)]
        text += "\n" + _rows(workers, [name for name in workers[0] if name not in inner])
        for name in inner:
            rows = [{"worker": worker["worker"]} | (worker[name] or {}) for worker in workers]
            columns = dict.fromkeys(column for row in rows for column in row)
            text += f"\n{label(name)}\n" + _rows(rows, list(columns))
    return text


def _counts(result: Row) -> str:
    limits = result.get("limits", {})
    rows = [["", "inbound", "outbound"]]
    for phase, ways in result.items():
        if phase != "limits" and isinstance(ways, dict):
            rows.append([label(phase), *(_of_limit(ways, limits, phase, way) for way in ("inbound", "outbound"))])
    return table(rows)


def _of_limit(ways: Row, limits: Row, phase: str, way: str) -> str:
    if way not in ways:
        return "-"
    limit = limits.get(f"max_{phase}_{way}", limits.get(f"max_{phase}"))
    return str(ways[way]) if limit is None else f"{ways[way]} of {limit}"


def _sessions(result: Row) -> str:
    columns = ["session", "peer", "direction", "stage", "worker", "remote", "client", "shared"]
    columns += ["bytes_in", "bytes_out", "rtt_ms"]
    return _rows(result["sessions"], columns) + f"{len(result['sessions'])} of {result['total']}\n"


def _history(result: list[Row]) -> str:
    return _rows(result, ["time_us", "session", "peer", "direction", "stage", "ended_by", "reason", "client", "cause"])


def _restart(result: Row) -> str:
    replaced = ", ".join(f"{item['worker']} by {item['by']}" for item in result["replaced"])
    return lines(
        [*_pairs({name: item for name, item in result.items() if name != "replaced"}), ("replaced", replaced or "-")]
    )


def _dialled(result: Row) -> str:
    return _fields(result.get("established") or result)


def _broadcast(result: Row) -> str:
    refused = Counter(result["refused"].values())
    words = ", ".join(f"{count} {shown(name)}" for name, count in sorted(refused.items()))
    return lines([("sent", str(result["sent"])), ("refused", words or "-")])


def _peers(result: Row) -> str:
    # The reason why the peer is not connected: our own decision, or the end of its last session or attempt.
    named = [item | _where(item["peer"]) | {"why": item.get("why_not") or item["last_end"]} for item in result["peers"]]
    text = _rows(named, ["peer", "address", "static", "trusted", "next_try_s", "why"])
    bans = [item | {"banned": _where(item["who"])["peer"]} for item in result["bans"]]
    return text + "\n" + _rows(bans, ["banned", "seconds"])


def _where(named: str) -> Row:
    """The beginning of an id, and the address if there is an enode."""
    peer, _, address = named.removeprefix("enode://").partition("@")
    return {"peer": peer if "." in peer or ":" in peer else peer[:ID_CHARACTERS], "address": address or None}


def _subprotocols(result: Row) -> str:
    offered = [item | {"required": item["protocol"].partition("/")[0] in result["required"]} for item in result["offered"]]
    return _rows(offered, ["protocol", "messages", "max_bytes", "required"])


_VIEWS: Final[dict[str, Callable[[Any], str]]] = {
    "status": _status,
    "counts": _counts,
    "set-limits": _counts,
    "peers": _peers,
    "peers-add": _peers,
    "peers-remove": _peers,
    "sessions": _sessions,
    "subprotocols": _subprotocols,
    "history": _history,
    "dial": _dialled,
    "broadcast": _broadcast,
    "restart-workers": _restart,
}
