"""The blocking face of a fleet has the names and the parameters of the other one."""

from __future__ import annotations

import inspect

import pytest

from rlpx.engine.client import BlockingFleet, BlockingFleetFeed, BlockingHost, Fleet, FleetFeed, Host
from rlpx.engine.client.commands import BlockingFleetCommands, FleetCommands

# What the two faces use of each other, and what commands are made of.
INNER = {"opened", "made_feed", "of_all", "of_session", "of_dialler"}
# Attributes that are set, not defined.
SET = {"name", "received", "missed"}


def names(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} - INNER


@pytest.mark.parametrize(
    ("kind", "blocking"), [(Fleet, BlockingFleet), (Host, BlockingHost), (FleetFeed, BlockingFleetFeed)]
)
def test_both_faces_have_the_same_names(kind: type, blocking: type) -> None:
    assert names(kind) - SET == names(blocking) - SET


# A handler that runs in a thread is no coroutine function.
@pytest.mark.parametrize("name", sorted(names(Fleet) - {"respond"}))
def test_both_faces_take_the_same_parameters(name: str) -> None:
    assert [*inspect.signature(getattr(Fleet, name)).parameters.values()] == [
        *inspect.signature(getattr(BlockingFleet, name)).parameters.values()
    ]


def test_every_command_of_a_fleet_is_on_both() -> None:
    assert names(FleetCommands) == names(BlockingFleetCommands)
