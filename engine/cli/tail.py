"""`rlpx-tail`: shows the events of a running engine, one per line, and every gap."""

from __future__ import annotations

import os

if __name__ == "__main__":
    from rlpx.engine.process import start

    start.tail()

import argparse
import sys
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

import msgspec

from rlpx.engine.cli.completion import add_completion
from rlpx.engine.cli.terminal import (
    Arguments,
    SomeSeconds,
    Times,
    add_connection,
    add_version,
    as_json,
    check_connection,
    fail,
    reaching,
    shown,
    typed,
)
from rlpx.engine.client.batch_reader import Event, Gap, Item, Malformed
from rlpx.engine.client.presence import EngineUnavailableError, why_missing
from rlpx.engine.client.subscriber import Subscriber
from rlpx.engine.client.topics import UnknownTopicWarning
from rlpx.protocol.errors import PeerError, printable

PROGRAM: Final = "rlpx-tail"
# In text, a longer payload is cut; --json has all of it.
SHOWN_PAYLOAD_BYTES: Final = 32
_POLL_SECONDS: Final = 0.5
_ID_CHARACTERS: Final = 16


def parser() -> Arguments:
    """All arguments."""
    arguments = Arguments(prog=PROGRAM, description="Print the events of a running rlpx-engine.")
    add_version(arguments)
    add_completion(arguments)
    add_connection(arguments)
    arguments.add_argument("--count", type=typed(Times), metavar="N", help="end after this many events")
    arguments.add_argument("--seconds", type=typed(SomeSeconds), metavar="S", help="end after this many seconds")
    arguments.add_argument("--decode", action="store_true", help="show the fields of eth and snap messages")
    arguments.add_argument(
        "topics", nargs="*", metavar="TOPIC-PREFIX", help="session., eth.Transactions ...; without any: all of them"
    )
    return arguments


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    all_arguments = parser()
    given = all_arguments.parse_args(arguments)
    check_connection(all_arguments, given)
    topics = given.topics or [""]
    with reaching(all_arguments), warnings.catch_warnings(record=True) as unknown:
        warnings.simplefilter("always", UnknownTopicWarning)
        if given.connect:
            subscriber = Subscriber(given.connect, topics, key=given.key)
        else:
            subscriber = Subscriber.of(given.run_dir, topics)
    for warning in unknown:
        sys.stderr.write(f"{PROGRAM}: {warning.message}\n")
    with subscriber:
        if subscriber.is_missing:
            why = why_missing(subscriber.endpoint)
            fail(PROGRAM, str(why), why.exit_code)
        try:
            _print_events(subscriber, given)
        except EngineUnavailableError as error:
            fail(PROGRAM, str(error), error.exit_code)
        except KeyboardInterrupt:
            return


def _print_events(subscriber: Subscriber, given: argparse.Namespace) -> None:
    left = given.count if given.count is not None else -1
    ends_at = monotonic() + given.seconds if given.seconds is not None else None
    while left and (ends_at is None or monotonic() < ends_at):
        wait = _POLL_SECONDS if ends_at is None else max(0.0, min(_POLL_SECONDS, ends_at - monotonic()))
        events = subscriber.poll(wait)
        if not events and subscriber.is_missing:
            fail(PROGRAM, f"the engine at {subscriber.endpoint} has ended", os.EX_UNAVAILABLE)
        for event in events:
            if not left:
                break
            if given.decode and isinstance(event, Event):
                event = _decoded(event)  # noqa: PLW2901 - the same event, with more fields
            sys.stdout.write(_as_json(event) if given.json else _as_text(event))
            left -= isinstance(event, Event)
        sys.stdout.flush()


def _decoded(event: Event) -> Event:
    """The event with its message's fields, or with the mistake in the message."""
    try:
        fields: dict[str, Any] = {"message": _in_hex(event.decode())}
    except PeerError as error:
        fields = {"malformed": str(error)}
    except ValueError:
        return event
    return msgspec.structs.replace(event, fields={**event.fields, **fields})


def _in_hex(value: object) -> Any:  # noqa: ANN401 - JSON
    """A message's fields as JSON values; bytes are 0x and hex."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, msgspec.Struct):
        return {name: _in_hex(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list | tuple):
        return [_in_hex(item) for item in value]
    return value


def _as_json(event: Item) -> str:
    if isinstance(event, Gap):
        line: dict[str, Any] = {"topic": "gap", "of": event.topic, "worker": event.worker, "missed": event.missed}
    elif isinstance(event, Malformed):
        line = {"topic": "malformed", "of": event.topic, "cause": event.cause}
    else:
        # A lifecycle event names its session's worker; that one is shown, not the publisher.
        line = {"topic": event.topic, "worker": event.worker, **event.fields}
        if "size" in event.fields:
            line["payload"] = "0x" + event.payload.hex()
    return as_json(line) + "\n"


def _as_text(event: Item) -> str:
    if isinstance(event, Malformed):
        return f"-- a batch of {printable(event.topic)} cannot be read: {printable(event.cause)}\n"
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
