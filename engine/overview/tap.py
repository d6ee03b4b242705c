"""The messages of one session as a person reads them: decoded, cut, and at most so many a second; and its requests.

It takes the events of a feed. Each message costs a look at its head; only those that are shown are decoded.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final, Literal

import msgspec

from rlpx.engine.client.decoding import decode
from rlpx.protocol.errors import PeerError, printable
from rlpx.protocol.eth.kinds import TAP

# Nobody reads more, and decoding must not take the time of the others who look.
SHOWN_PER_BATCH: Final = 20
MAX_DECODED_BYTES: Final = 64 * 1024
# What is shown of a list, of a byte string, and of a whole message.
MAX_ITEMS: Final = 16
MAX_SHOWN_BYTES: Final = 64
MAX_TEXT_CHARACTERS: Final = 6000
MAX_SUMMARY_CHARACTERS: Final = 160
MAX_DEPTH: Final = 8
# Requests that wait for an answer. The engine itself allows a peer fewer.
MAX_WAITING: Final = 256
_GET: Final = "Get"
_MICROSECONDS_PER_MS: Final = 1000


class ShownMessage(msgspec.Struct, frozen=True):
    """One message. `name` is `eth.Transactions`, `summary` one line, `decoded` the fields as JSON, or why there are none."""

    number: int
    time_us: int
    way: Literal["in", "out"]
    name: str
    size: int
    request_id: int | None
    summary: str
    decoded: str


class ShownRequest(msgspec.Struct, frozen=True):
    """A request, from the peer (`in`) or from us, and its answer if it has come; `size` is that of the answer."""

    key: str
    time_us: int
    way: Literal["in", "out"]
    name: str
    answered: bool = False
    after_ms: float | None = None
    size: int | None = None


class Tapped(msgspec.Struct):
    """What a batch adds: messages to show, how many more there were, and requests that are new or answered."""

    messages: list[ShownMessage] = []
    requests: list[ShownRequest] = []
    omitted: int = 0
    lost: int = 0
    cause: str | None = None


class Tap:
    """Takes the events of one session, and hands over what is to be shown since the last time."""

    def __init__(self) -> None:
        self._number = 0
        self._waiting: OrderedDict[tuple[str, str, int], ShownRequest] = OrderedDict()
        self._tapped = Tapped()

    def take(self, topic: str, fields: dict[str, Any], payload: bytes) -> None:
        """Take an event. Those that are not messages are ignored."""
        if "size" not in fields:
            return
        self._number += 1
        way: Literal["in", "out"] = "out" if topic.startswith(TAP) else "in"
        name = topic.removeprefix(TAP)
        self._pair(way, name, fields)
        if len(self._tapped.messages) >= SHOWN_PER_BATCH:
            self._tapped.omitted += 1
            return
        summary, decoded = _decoded(topic, fields, payload)
        self._tapped.messages.append(
            ShownMessage(
                number=self._number,
                time_us=fields["time_us"],
                way=way,
                name=name,
                size=fields["size"],
                request_id=fields.get("request_id"),
                summary=summary,
                decoded=decoded,
            )
        )

    def lose(self, count: int) -> None:
        """Messages were lost on the way to us."""
        self._tapped.lost += count

    def end(self, cause: str) -> None:
        """No more messages come, for this cause."""
        self._tapped.cause = printable(cause)

    def collect(self) -> Tapped | None:
        """What is new since the last time; `None` if nothing is."""
        tapped, self._tapped = self._tapped, Tapped()
        is_empty = not (tapped.messages or tapped.requests or tapped.lost or tapped.cause)
        return None if is_empty else tapped

    def _pair(self, way: Literal["in", "out"], name: str, fields: dict[str, Any]) -> None:
        request_id = fields.get("request_id")
        if request_id is None:
            return
        capability, _, message = name.partition(".")
        if message.startswith(_GET):
            request = ShownRequest(f"{way} {request_id} {name}", fields["time_us"], way, name)
            self._waiting[way, name, request_id] = request
            if len(self._waiting) > MAX_WAITING:
                self._waiting.popitem(last=False)
            self._show(request)
            return
        asked: Literal["in", "out"] = "out" if way == "in" else "in"
        found = self._waiting.pop((asked, f"{capability}.{_GET}{message}", request_id), None)
        if found is not None:
            after_ms = max(0, fields["time_us"] - found.time_us) / _MICROSECONDS_PER_MS
            self._show(msgspec.structs.replace(found, answered=True, after_ms=after_ms, size=fields["size"]))

    def _show(self, request: ShownRequest) -> None:
        if len(self._tapped.requests) < MAX_WAITING:
            self._tapped.requests.append(request)


def _decoded(topic: str, fields: dict[str, Any], payload: bytes) -> tuple[str, str]:
    """One line about a message, and its fields."""
    if len(payload) > MAX_DECODED_BYTES:
        return "", f"too large to be decoded here: {len(payload)} bytes"
    try:
        message = decode(topic, fields.get("version"), payload)
    except PeerError as error:
        return f"malformed: {printable(str(error))}", _hex(payload)
    except ValueError:
        # A sub-protocol of the user's own.
        return _hex(payload[:MAX_SHOWN_BYTES]), _hex(payload)
    values = {name: getattr(message, name) for name in message.__struct_fields__ if name != "request_id"}
    summary = ", ".join(f"{name.replace('_', ' ')} {_brief(value)}" for name, value in values.items())
    text = msgspec.json.format(msgspec.json.encode(_bounded(message, MAX_DEPTH)), indent=2).decode()
    return printable(summary, MAX_SUMMARY_CHARACTERS), _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARACTERS else f"{text[:MAX_TEXT_CHARACTERS]} …"


def _hex(value: bytes) -> str:
    more = f"… ({len(value)} bytes)" if len(value) > MAX_SHOWN_BYTES else ""
    return f"0x{value[:MAX_SHOWN_BYTES].hex()}{more}"


def _brief(value: Any) -> str:  # noqa: ANN401 - any field of a message
    if isinstance(value, bytes):
        return f"0x{value[:6].hex()}{'…' if len(value) > 6 else ''}"  # noqa: PLR2004 - enough to tell hashes apart
    if isinstance(value, tuple | list):
        return f"{len(value)}"
    if isinstance(value, msgspec.Struct):
        return " ".join(f"{name}={_brief(getattr(value, name))}" for name in value.__struct_fields__)
    return str(value)


def _bounded(value: Any, depth: int) -> Any:  # noqa: ANN401 - any field of a message, and JSON
    """A value as JSON, with the beginnings of long lists and byte strings."""
    if isinstance(value, bytes | bytearray | memoryview):
        return _hex(bytes(value[: MAX_SHOWN_BYTES + 1]) if len(value) <= MAX_SHOWN_BYTES else bytes(value))
    if isinstance(value, int) and not isinstance(value, bool):
        # JSON's readers lose digits beyond 53 bits.
        return value if value.bit_length() <= 53 else str(value)  # noqa: PLR2004 - see above
    if isinstance(value, msgspec.Struct | tuple | list) and not depth:
        return "…"
    if isinstance(value, msgspec.Struct):
        return {name: _bounded(getattr(value, name), depth - 1) for name in value.__struct_fields__}
    if isinstance(value, tuple | list):
        more = [f"… and {len(value) - MAX_ITEMS} more"] if len(value) > MAX_ITEMS else []
        return [*(_bounded(item, depth - 1) for item in value[:MAX_ITEMS]), *more]
    return value if value is None or isinstance(value, bool | str | float) else str(value)
