"""The protocols that a Hello offers: eth and snap by the settings, the user's own as they come and go."""

from __future__ import annotations

import pytest

from rlpx.engine.settings.protocols import Protocols, parse_sub_protocol
from rlpx.engine.settings.settings import ProtocolSettings
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.rlpx.capabilities import Capability, SubProtocol

WIT = SubProtocol(Capability("wit", 0), 4, 65_536)


def test_what_is_offered_is_in_the_settings() -> None:
    protocols = Protocols(ProtocolSettings(eth=(70, 69, 69), snap=(1,), extra=("wit/0/4/65536",), required=("wit",)))
    assert protocols.offered == (eth.sub_protocol(69), eth.sub_protocol(70), snap.sub_protocol(1), WIT)
    assert protocols.extra == (WIT,)
    assert protocols.required == ("wit",)
    assert not protocols.has_changed


def test_a_limit_in_bytes_may_be_left_out() -> None:
    assert parse_sub_protocol("wit/0/4").limit_bytes == 16 * 1024 * 1024 - 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("eth/70/18", "eth is built in"),
        ("snap/1/8", "snap is"),
        ("wit/0/4/16777216", "MAX_BYTES is from 1 to"),
        ("wit/0/4/0", "MAX_BYTES is from 1 to"),
        ("tap/1/4", "other topics"),
    ],
)
def test_what_cannot_be_offered_is_said_why(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_sub_protocol(text)


def test_one_of_the_users_own_comes_changes_and_goes() -> None:
    protocols = Protocols(ProtocolSettings(eth=(69,)))
    protocols.add(WIT, is_required=True)
    assert protocols.offered == (eth.sub_protocol(69), WIT)
    assert protocols.required == ("wit",)
    assert protocols.has_changed
    larger = SubProtocol(WIT.capability, 8)
    protocols.add(larger, is_required=False)
    assert list(protocols.extra) == [larger]
    assert list(protocols.required) == []
    assert protocols.remove(WIT.capability)
    assert list(protocols.offered) == [eth.sub_protocol(69)]
    assert not protocols.remove(WIT.capability)


def test_a_name_is_required_until_its_last_version_goes() -> None:
    protocols = Protocols(ProtocolSettings(eth=(69,), extra=("wit/0/4", "wit/1/4"), required=("wit",)))
    assert protocols.remove(Capability("wit", 0))
    assert protocols.required == ("wit",)
    assert protocols.remove(Capability("wit", 1))
    assert list(protocols.required) == []


def test_another_version_of_a_required_name_leaves_it_required() -> None:
    protocols = Protocols(ProtocolSettings(eth=(69,), extra=("wit/0/4",), required=("wit",)))
    protocols.add(SubProtocol(Capability("wit", 1), 4), is_required=False)
    assert protocols.required == ("wit",)


def test_the_codes_of_all_that_a_peer_may_share_have_to_be_enough() -> None:
    # eth/69 has 18 codes, of 112 in all; a peer shares one version of each name.
    protocols = Protocols(ProtocolSettings(eth=(69,), extra=("wit/0/94", "wit/1/94")))
    with pytest.raises(ValueError, match="113 message codes; there are 112"):
        protocols.add(SubProtocol(Capability("more", 1), 1), is_required=True)
    assert (len(protocols.extra), protocols.required) == (2, ())


def test_no_more_are_offered_than_a_hello_has_room_for() -> None:
    with pytest.raises(ValueError, match="101 capabilities are too many; a Hello has room for 100"):
        Protocols(ProtocolSettings(eth=(69,), extra=tuple(f"manynames/{number}/1" for number in range(100))))


def test_a_configuration_that_takes_too_many_codes_is_refused() -> None:
    with pytest.raises(ValueError, match="117 message codes; there are 112"):
        Protocols(ProtocolSettings(eth=(69,), extra=("aaa/1/99",)))
