"""The topics of all events, and warnings about prefixes of no topic."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from typing import Final

from rlpx.protocol.bus.events import LIFECYCLE
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.eth.kinds import TAP, message_names, request_names
from rlpx.protocol.wording import Expected, nearest, shortened, wrong

_MESSAGES: Final = tuple(f"{name}.{message}" for name in (eth.NAME, snap.NAME) for message in message_names(name))
KNOWN: Final = (*sorted(LIFECYCLE), *_MESSAGES, *(TAP + topic for topic in _MESSAGES))
REQUESTS: Final = tuple(f"{name}.{message}" for name in (eth.NAME, snap.NAME) for message in request_names(name))
_BEGINNINGS: Final = frozenset(topic.partition(".")[0] for topic in KNOWN)
# A topic of a user's own sub-protocol: its name, and the number of one of its messages.
_OWN: Final = re.compile(r"(?P<name>[a-z][a-z0-9]{0,7})\.(?P<number>[0-9]{0,3})")


class UnknownTopicWarning(UserWarning):
    """No event will ever have a topic with this prefix."""


def checked_prefixes(topics: object) -> list[str]:
    """A list of prefixes of topics. Raises `TypeError` for a string, whose letters would be taken for prefixes."""
    given: list[object] = [topics]
    prefixes: list[str] = []
    if isinstance(topics, Iterable) and not isinstance(topics, str | bytes):
        given = list(topics)
        prefixes = [prefix for prefix in given if isinstance(prefix, str)]
    if len(prefixes) < len(given):
        wrong_one = next((item for item in given if not isinstance(item, str)), given[0])
        expected = Expected("a list of topics or their beginnings", '["eth.", "session."]')
        raise TypeError(f"topics: {wrong(wrong_one, expected)}")
    return prefixes


def sub_protocol_of(prefix: str) -> str | None:
    """The user's own sub-protocol that a prefix may mean; only an engine knows whether it offers that."""
    found = _OWN.fullmatch(prefix.removeprefix(TAP))
    return found["name"] if found is not None and found["name"] not in _BEGINNINGS else None


def complaint(prefix: str, offered: Iterable[str] = ()) -> str | None:
    """The complaint about a prefix of no topic, with the nearest topics; `None` if the prefix is right.

    `offered`: names of the sub-protocols that the engine offers beside eth and snap.
    """
    if any(topic.startswith(prefix) for topic in KNOWN):
        return None
    own = {f"{name}." for name in offered}
    own |= {TAP + beginning for beginning in own}
    if any(prefix.startswith(beginning) or beginning.startswith(prefix) for beginning in own):
        return None
    beginnings = {f"{name}." for name in _BEGINNINGS}
    hint = nearest(prefix, {*KNOWN, *own, *beginnings}) or f"; topics begin with {', '.join(sorted(beginnings | own))}"
    return f"no topic begins with '{shortened(prefix)}'{hint}"


def warn_of_unknown(prefixes: Iterable[str], offered: Iterable[str] = (), *, stacklevel: int = 2) -> None:
    """Warn of each prefix of no topic."""
    names = tuple(offered)
    for prefix in prefixes:
        text = complaint(prefix, names)
        if text is not None:
            warnings.warn(text, UnknownTopicWarning, stacklevel=stacklevel + 1)


def warn_of_no_request(topics: Iterable[str], *, stacklevel: int = 2) -> None:
    """Warn of each topic that is not a request of peers to us."""
    for topic in topics:
        if topic not in REQUESTS:
            text = f"no request of a peer has the topic '{shortened(topic)}'{nearest(topic, REQUESTS)}"
            warnings.warn(text, UnknownTopicWarning, stacklevel=stacklevel + 1)
