"""`rlpx-tail`: the events of a running engine, one a line, with the gaps where some were lost."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

import msgspec

from engine.client import EngineUnavailableError, Event, Gap, Subscriber
from engine.config import EXIT_UNAVAILABLE, ConfigError
from engine.terminal import Arguments, add_connection, as_json, fail, shown
from protocol.errors import PeerError

PROGRAM: Final = "rlpx-tail"
# A payload longer than this is cut in the readable form; --json has all of it.
SHOWN_PAYLOAD_BYTES: Final = 32
_POLL_SECONDS: Final = 0.5
_ID_CHARACTERS: Final = 16


def parser() -> argparse.ArgumentParser:
    """All flags."""
    arguments = Arguments(prog=PROGRAM, description="Print the events of a running rlpx-engine.")
    add_connection(arguments)
    arguments.add_argument("--count", type=int, metavar="N", help="end after this many events")
    arguments.add_argument("--seconds", type=float, metavar="S", help="end after this many seconds")
    arguments.add_argument("--decode", action="store_true", help="show the fields of eth and snap messages")
    arguments.add_argument(
        "topics", nargs="*", metavar="TOPIC-PREFIX", help="session., eth.Transactions, …; without any: all of them"
    )
    return arguments


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    given = parser().parse_args(arguments)
    topics = given.topics or [""]
    try:
        subscriber = Subscriber(given.connect, topics) if given.connect else Subscriber.of(given.run_dir, topics)
    except ConfigError as error:
        fail(PROGRAM, str(error), error.exit_code)
    except EngineUnavailableError as error:
        fail(PROGRAM, str(error), EXIT_UNAVAILABLE)
    with subscriber:
        if subscriber.is_missing:
            fail(PROGRAM, f"no engine at {subscriber.endpoint}", EXIT_UNAVAILABLE)
        try:
            _print_events(subscriber, given)
        except KeyboardInterrupt:
            return
        except BrokenPipeError:
            # The reader of our output has gone; so does what Python would still flush at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_events(subscriber: Subscriber, given: argparse.Namespace) -> None:
    left = given.count if given.count is not None else -1
    ends_at = monotonic() + given.seconds if given.seconds is not None else None
    while left and (ends_at is None or monotonic() < ends_at):
        wait = _POLL_SECONDS if ends_at is None else max(0.0, min(_POLL_SECONDS, ends_at - monotonic()))
        events = subscriber.poll(wait)
        if not events and subscriber.is_missing:
            fail(PROGRAM, f"the engine at {subscriber.endpoint} has ended", EXIT_UNAVAILABLE)
        for event in events:
            if not left:
                break
            if given.decode and isinstance(event, Event):
                event = _decoded(event)  # noqa: PLW2901 - the same event, with more fields
            sys.stdout.write(_as_json(event) if given.json else _as_text(event))
            left -= isinstance(event, Event)
        sys.stdout.flush()


def _decoded(event: Event) -> Event:
    """The event with its message's fields, or with the words of what is wrong with it."""
    try:
        fields: dict[str, Any] = {"message": _in_hex(event.decode())}
    except PeerError as error:
        fields = {"malformed": str(error)}
    except ValueError:
        return event
    return msgspec.structs.replace(event, fields={**event.fields, **fields})


def _in_hex(value: object) -> Any:  # noqa: ANN401 - JSON
    """A message's fields as JSON has them: bytes as 0x and hex."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, msgspec.Struct):
        return {name: _in_hex(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list | tuple):
        return [_in_hex(item) for item in value]
    return value


def _as_json(event: Event | Gap) -> str:
    if isinstance(event, Gap):
        line: dict[str, Any] = {"topic": "gap", "of": event.topic, "worker": event.worker, "missed": event.missed}
    else:
        # Lifecycle events name their session's worker themselves: that one is meant then, not the publisher.
        line = {"topic": event.topic, "worker": event.worker, **event.fields}
        if "size" in event.fields:
            line["payload"] = "0x" + event.payload.hex()
    return as_json(line) + "\n"


def _as_text(event: Event | Gap) -> str:
    if isinstance(event, Gap):
        return f"-- gap in {event.topic} of worker {shown(event.worker)}: {event.missed} missed\n"
    fields = dict(event.fields)
    time = datetime.fromtimestamp(fields.pop("time_us") / 1_000_000, UTC).strftime("%H:%M:%S.%f")
    if isinstance(fields.get("peer"), str):
        fields["peer"] = fields["peer"][:_ID_CHARACTERS]
    line = f"{time} {event.topic} {shown(fields)}"
    if event.payload:
        cut = "…" if len(event.payload) > SHOWN_PAYLOAD_BYTES else ""
        line += f" 0x{event.payload[:SHOWN_PAYLOAD_BYTES].hex()}{cut}"
    return line + "\n"


if __name__ == "__main__":
    main()
