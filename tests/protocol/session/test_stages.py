"""The stages as data: what moves a session, and the diagram in the room's page that is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlpx.protocol.lifecycle import Direction, Stage
from rlpx.protocol.session.stages import FIRST_STAGES, TRANSITIONS, Move, diagram

PAGE = Path(__file__).parents[3] / "protocol" / "session" / "README.md"
PENDING_AND_ACTIVE = set(Stage) - {Stage.CONNECT, Stage.CLOSED}


def test_the_page_shows_the_diagram_that_the_table_makes() -> None:
    assert f"```mermaid\n{diagram()}\n```\n" in PAGE.read_text()


def test_every_stage_can_end_and_nothing_follows_the_end() -> None:
    assert {stage for stage, move in TRANSITIONS if move is Move.END} == PENDING_AND_ACTIVE
    assert all(TRANSITIONS[stage, Move.END] is Stage.CLOSED for stage in PENDING_AND_ACTIVE)
    assert all(stage is not Stage.CLOSED for stage, _ in TRANSITIONS)


@pytest.mark.parametrize(
    ("direction", "stages"),
    [
        (Direction.INBOUND, [Stage.AUTH, Stage.HELLO, Stage.STATUS, Stage.VERDICT, Stage.ACTIVE]),
        (Direction.OUTBOUND, [Stage.ACK, Stage.HELLO, Stage.STATUS, Stage.VERDICT, Stage.ACTIVE]),
    ],
)
def test_there_is_one_way_to_active(direction: Direction, stages: list[Stage]) -> None:
    onward = {stage: then for (stage, move), then in TRANSITIONS.items() if move is not Move.END}
    way = [FIRST_STAGES[direction]]
    while way[-1] in onward:
        way.append(onward[way[-1]])
    assert way == stages
