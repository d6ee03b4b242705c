"""Payloads of simulated peers: valid in every version of eth, the same for every process, and made once."""

from __future__ import annotations

import pytest

from rlpx.protocol import rlp
from rlpx.protocol.bus.swarm import Messages, Scenario
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.table import MAX_MESSAGE_BYTES
from rlpx.protocol.rlpx.p2p import inflate
from rlpx.workers.swarm.bodies import DIFFERENT_BODIES, Bodies

SCENARIO = Scenario("test", messages=Messages(hashes=5, transaction_bytes=100))
LIMIT = MAX_MESSAGE_BYTES


@pytest.mark.parametrize("version", eth.VERSIONS)
def test_an_announcement_has_the_form_of_its_version(version: int) -> None:
    items = rlp.decode_list(inflate(Bodies(SCENARIO, 1).announcement(version, 0), LIMIT))
    if version < eth.TYPED_ANNOUNCEMENT_VERSION:
        assert [len(rlp.as_bytes(item)) for item in items] == [32] * 5
    else:
        kinds, sizes, hashes, *mask = items
        assert (len(rlp.as_bytes(kinds)), len(rlp.as_list(sizes)), len(rlp.as_list(hashes))) == (5, 5, 5)
        assert len(mask) == (version >= eth.CELLS_VERSION)


def test_a_transaction_is_an_envelope_of_about_the_size_that_is_wanted() -> None:
    [envelope] = rlp.decode_list(inflate(Bodies(SCENARIO, 1).transactions(0), LIMIT))
    assert rlp.as_bytes(envelope)[0] == 2
    assert 100 < len(rlp.as_bytes(envelope)) < 300


def test_all_processes_of_a_swarm_make_the_same_and_other_swarms_others() -> None:
    first, second, other = Bodies(SCENARIO, 1), Bodies(SCENARIO, 1), Bodies(SCENARIO, 2)
    assert first.announcement(69, 3) == second.announcement(69, 3) != other.announcement(69, 3)
    assert first.transactions(3) == second.transactions(3) != other.transactions(3)


def test_there_are_only_so_many_and_each_is_made_once() -> None:
    bodies = Bodies(SCENARIO, 1)
    made = [bodies.transactions(number) for number in range(2 * DIFFERENT_BODIES)]
    assert len(set(made)) == DIFFERENT_BODIES
    assert bodies.transactions(DIFFERENT_BODIES) is made[0]
