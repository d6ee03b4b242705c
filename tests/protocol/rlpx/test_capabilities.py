"""What two peers share: go-ethereum's cases, and a matching written out plainly beside ours."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.eth import eth, snap
from rlpx.protocol.rlpx.capabilities import FIRST_CAPABILITY_CODE, LAST_CODE, Capability, Shared, SubProtocol, share
from tests.vectors import load

VECTORS = load("capability_matching")
CASES = VECTORS["go_ethereum_TestMatchProtocols"] + VECTORS["computed_with_same_rule"]

capabilities = st.builds(Capability, st.sampled_from(["", "a", "b", "eth", "snap", "Z", "é", "z"]), st.integers(0, 4))


def protocols(most_messages: int) -> st.SearchStrategy[list[SubProtocol]]:
    """Sub-protocols of ours, each capability once."""
    counts = st.dictionaries(capabilities, st.integers(0, most_messages), max_size=10)
    return counts.map(lambda known: [SubProtocol(capability, messages) for capability, messages in known.items()])


def plainly_shared(ours: list[SubProtocol], theirs: list[Capability]) -> tuple[Shared, ...]:
    """The rule of `rlpx.md`, "Message IDs", word for word: common names in order, of each the highest common version."""
    names = {protocol.capability.name for protocol in ours}
    shared: list[Shared] = []
    offset = 0x10
    for name in sorted(names, key=str.encode):
        common = [protocol for protocol in ours if protocol.capability.name == name and protocol.capability in theirs]
        if common:
            best = max(common, key=lambda protocol: protocol.capability.version)
            shared.append(Shared(best.capability, offset, best.messages))
            offset += best.messages
    return tuple(shared)


@pytest.mark.parametrize("case", CASES)
def test_the_published_cases_are_matched(case: dict[str, Any]) -> None:
    ours = [SubProtocol(Capability(name, version), messages) for name, version, messages in case["local"]]
    theirs = [Capability(name, version) for name, version in case["remote"]]
    matched = {
        item.capability.name: (item.capability.version, item.offset - FIRST_CAPABILITY_CODE) for item in share(ours, theirs)
    }
    assert matched == {name: (match["version"], match["offset"]) for name, match in case["match"].items()}


def test_an_offset_on_the_wire_counts_the_base_protocols_codes() -> None:
    case = VECTORS["computed_with_same_rule"][2]
    ours = [SubProtocol(Capability(name, version), messages) for name, version, messages in case["local"]]
    shared = share(ours, [Capability(name, version) for name, version in case["remote"]])
    assert [(item.capability.name, item.offset) for item in shared] == [("eth", 16), ("snap", 38)]
    assert {item.capability.name: item.offset for item in shared} == {
        name: match["wire_offset"] for name, match in case["match"].items()
    }


@given(ours=protocols(most_messages=11), theirs=st.lists(capabilities, max_size=20))
def test_what_fits_is_shared_as_the_rule_says(ours: list[SubProtocol], theirs: list[Capability]) -> None:
    assert share(ours, theirs) == plainly_shared(ours, theirs)


@given(ours=protocols(most_messages=11), theirs=st.lists(capabilities, max_size=20), data=st.data())
def test_the_order_in_which_either_side_lists_changes_nothing(
    ours: list[SubProtocol], theirs: list[Capability], data: st.DataObject
) -> None:
    ours_again = data.draw(st.permutations(ours))
    theirs_again = data.draw(st.permutations(theirs + theirs))
    assert share(ours_again, theirs_again) == share(ours, theirs)


@given(ours=protocols(most_messages=200), theirs=st.lists(capabilities, max_size=20))
def test_no_code_is_above_0x7f_and_no_code_has_two_owners(ours: list[SubProtocol], theirs: list[Capability]) -> None:
    codes = [code for item in share(ours, theirs) for code in range(item.offset, item.offset + item.messages)]
    assert codes == list(range(FIRST_CAPABILITY_CODE, FIRST_CAPABILITY_CODE + len(codes)))
    assert all(code <= LAST_CODE for code in codes)


def test_a_capability_may_end_at_code_0x7f_and_no_further() -> None:
    whole = SubProtocol(Capability("a", 1), 0x70)
    assert share([whole], [whole.capability]) == (Shared(whole.capability, 0x10, 0x70),)
    over = SubProtocol(Capability("a", 1), 0x71)
    assert share([over], [over.capability]) == ()


def test_what_follows_a_capability_without_room_is_not_shared_either() -> None:
    # The peer counts the codes of `b` as well: to it, the codes of `c` are not where we would put them.
    ours = [SubProtocol(Capability(name, 1), messages) for name, messages in [("a", 0x60), ("b", 0x20), ("c", 0x08)]]
    shared = share(ours, [protocol.capability for protocol in ours])
    assert set(shared) <= set(plainly_shared(ours, [protocol.capability for protocol in ours]))


def test_all_that_we_speak_fits_at_once() -> None:
    ours = [eth.sub_protocol(72), snap.sub_protocol(2)]
    assert share(ours, [protocol.capability for protocol in ours]) == (
        Shared(Capability("eth", 72), 0x10, 22, 10 << 20),
        Shared(Capability("snap", 2), 0x26, 10, 10 << 20),
    )
