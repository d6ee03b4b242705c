"""Any value of a struct that our processes send, from its annotations alone: a new message is tested without being named."""

from __future__ import annotations

from enum import Enum
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

import msgspec
from hypothesis import strategies as st

from rlpx.protocol.eth.forkid import Chain
from rlpx.protocol.settings import ConductSettings, QueueSettings, TimeoutSettings, WorkerSettings

UNSIGNED = st.integers(0, 2**63 - 1)
CHAINS = st.builds(
    Chain,
    name=st.text(max_size=8),
    network_id=UNSIGNED,
    genesis_hash=st.binary(min_size=32, max_size=32).map(bytes.hex),
    genesis_time=UNSIGNED,
    fork_blocks=st.lists(UNSIGNED, max_size=3).map(tuple),
    fork_times=st.lists(UNSIGNED, max_size=3).map(tuple),
)
# What a field's annotation stands for; structs, enums, tuples and unions are taken apart below.
LEAVES: Final[dict[Any, st.SearchStrategy[Any]]] = {
    int: st.integers(-(2**63), 2**64 - 1),
    float: st.floats(allow_nan=False),
    str: st.text(st.characters(codec="utf-8"), max_size=10),
    bytes: st.binary(max_size=40),
    bool: st.booleans(),
    type(None): st.none(),
    Chain: CHAINS,
    # The bounds of settings are checked where settings are.
    WorkerSettings: st.builds(
        WorkerSettings,
        timeouts=st.builds(TimeoutSettings, ping_s=st.floats(0.001, 86_400)),
        conduct=st.builds(ConductSettings, ends_on_breach=st.booleans()),
        queues=st.builds(QueueSettings, goodbyes=st.integers(0, 1_000_000)),
    ),
}


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type: a message that is added to `control` is tested without being named here."""
    annotation = getattr(annotation, "__supertype__", annotation)
    if annotation in LEAVES:
        return LEAVES[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in {Union, UnionType}:
        return st.one_of(*map(values, arguments))
    if origin is dict:
        return st.dictionaries(*map(values, arguments), max_size=3)
    if origin is list:
        return st.lists(values(arguments[0]), max_size=3)
    if origin is tuple:
        is_any_length = arguments[-1] is Ellipsis
        return st.lists(values(arguments[0]), max_size=3).map(tuple) if is_any_length else st.tuples(*map(values, arguments))
    return st.sampled_from(annotation) if issubclass(annotation, Enum) else structs(annotation)


def structs(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a struct."""
    return st.builds(kind, **{field.name: values(field.type) for field in msgspec.structs.fields(kind)})


def kinds(union: Any) -> tuple[Any, ...]:
    """The members of one direction's union."""
    members: tuple[Any, ...] = get_args(union)
    return members
