"""Where what is said to a fleet goes: its servers, its subjects, and the host that a command concerns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from rlpx.protocol.cluster.records import Heartbeat
from rlpx.protocol.cluster.rendezvous import owner_of, weight_of
from rlpx.protocol.rlpx.enode import parse_enode

DEFAULT_PORT: Final = 4222
# The topic under which a host says in the fleet's stream how many events it could not keep while NATS was away.
EVENTS_LOST: Final = "engine.events_lost"
# The topics under which the stream says of a host, given its run, that it has fallen silent, and that it is heard again.
HOST_LOST: Final = "engine.lost"
HOST_BACK: Final = "engine.back"
# Room for the headers of a message within the largest that the servers take (`max_payload`): they end the connection of one
# who sends more.
HEADER_BYTES: Final = 1024
# The header with the size of a payload that follows the text of a request or a reply.
PAYLOAD_BYTES: Final = "Rlpx-Payload-Bytes"
# The header with the name that its caller has given to a request, and the one that cancels the request of this name.
CALL: Final = "Rlpx-Call"
CANCEL: Final = "Rlpx-Cancel"
# The header that a program's answer to a peer has; without it, the peer gets the empty answer.
ANSWER: Final = "Rlpx-Answer"
# The beginning of the headers of a request.
_ASKED: Final = "Rlpx-Asked-"
# Commands about one session: the host that has it.
OF_A_SESSION: Final = frozenset({"session", "disconnect", "send", "request"})
# Commands that must name their host.
OF_A_NAMED_HOST: Final = frozenset({"shutdown", "snapshot"})


def server_urls(text: str) -> tuple[str, ...]:
    """The servers in `nats://a,b,c`: the first scheme holds for those without one, and the port is 4222 by default."""
    scheme, _, _ = text.partition("://")
    names = [name.strip() for name in text.split(",")]
    urls = [name if "://" in name else f"{scheme}://{name}" for name in names]
    return tuple(url if _has_port(url) else f"{url}:{DEFAULT_PORT}" for url in urls)


def without_password(url: str) -> str:
    """A server's address as logs and errors may show it."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _has_port(url: str) -> bool:
    host = url.partition("://")[2].rpartition("@")[2]
    return host.rpartition("]")[2].partition(":")[2].isdecimal()


def covers(pattern: str, subject: str) -> bool:
    """Whether a pattern of NATS takes every subject that the other one takes, which does not end with `>`."""
    words, others = pattern.split("."), subject.split(".")
    if words[-1] == ">" and len(others) >= len(words):
        others = [*others[: len(words) - 1], ">"]
    return len(words) == len(others) and all(word in ("*", other) for word, other in zip(words, others, strict=True))


def command_subject(fleet: str, host: str) -> str:
    """Where the requests to a host go."""
    return f"rlpx.{fleet}.{host}.command"


def dialler(enode: str, hosts: Mapping[str, Heartbeat]) -> str:
    """The host that dials a peer: by the peer's id, among those with free places. Raises `ValueError` for a bad enode."""
    weights = {name: weight_of(sum(beat.free.values())) for name, beat in hosts.items()}
    return owner_of(parse_enode(enode).id, weights) or min(hosts)


class Asked(msgspec.Struct, frozen=True):
    """What a host says of a peer's request besides its topic and payload."""

    session: int
    peer: str
    version: int
    request_id: int


def asked_headers(asked: Asked) -> dict[str, str]:
    """The headers of a request that goes to a program."""
    return {f"{_ASKED}{name}": str(getattr(asked, name)) for name in Asked.__struct_fields__}


def read_asked(headers: Mapping[str, str]) -> Asked:
    """What the headers say. Raises `ValueError` if they do not say everything."""
    return msgspec.convert({name: headers.get(f"{_ASKED}{name}") for name in Asked.__struct_fields__}, Asked, strict=False)
