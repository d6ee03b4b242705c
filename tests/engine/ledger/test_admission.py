"""Which addresses may connect, and how many sessions one address or network may have."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.engine.ledger.addresses import Address, parse_address
from rlpx.engine.ledger.admission import Admission
from rlpx.engine.settings.settings import AccessSettings, ThrottleSettings
from rlpx.protocol.bus.control import SessionId

LIVE = ThrottleSettings(per_ip_live=2, per_subnet_live=3, per_ip_interval_s=0, exempt_cidrs=())
INTERVAL = ThrottleSettings(per_ip_live=100, per_subnet_live=100, per_ip_interval_s=30, exempt_cidrs=())
ANYBODY = AccessSettings()


def asked(admission: Admission, session: int, host: str, now: float = 0.0) -> str | None:
    """Ask for one accept."""
    return admission.book(SessionId(session), parse_address(host), now=now)


def test_one_address_has_so_many_sessions_at_a_time() -> None:
    admission = Admission(LIVE, ANYBODY)
    assert asked(admission, 1, "1.2.3.4") is None
    assert asked(admission, 2, "1.2.3.4") is None
    assert asked(admission, 3, "1.2.3.4") == "the address has 2 sessions"
    assert asked(admission, 4, "1.2.3.5") is None


def test_one_subnet_has_so_many_sessions_at_a_time() -> None:
    admission = Admission(LIVE, ANYBODY)
    for session in (1, 2, 3):
        assert asked(admission, session, f"1.2.3.{session}") is None
    assert asked(admission, 4, "1.2.3.200") == "the subnet 1.2.3.0/24 has 3 sessions"
    assert asked(admission, 5, "1.2.4.1") is None


def test_a_subnet_of_ipv6_is_a_64() -> None:
    admission = Admission(LIVE, ANYBODY)
    for session in (1, 2, 3):
        assert asked(admission, session, f"2001:db8::{session}") is None
    assert asked(admission, 4, "2001:db8::ffff:0:0:1") == "the subnet 2001:db8::/64 has 3 sessions"
    assert asked(admission, 5, "2001:db8:0:1::1") is None


@pytest.mark.parametrize(
    ("prefix", "network", "elsewhere"),
    [
        ("1.2.{}.1", "1.2.0.0/16", "1.3.0.1"),
        ("2001:db8:1:{:x}::1", "2001:db8:1::/56", "2001:db8:2::1"),
        ("2001:db8:1:{:x}00::1", "2001:db8:1::/48", "2001:db8:2::1"),
    ],
)
def test_wider_networks_have_their_shares_as_well(prefix: str, network: str, elsewhere: str) -> None:
    wide = msgspec.structs.replace(LIVE, per_ipv4_16_live=5, per_ipv6_56_live=5, per_ipv6_48_live=5)
    admission = Admission(wide, ANYBODY)
    for number in range(5):
        assert asked(admission, number, prefix.format(number)) is None
    assert asked(admission, 5, prefix.format(5)) == f"the subnet {network} has 5 sessions"
    assert asked(admission, 6, elsewhere) is None
    admission.release(SessionId(0))
    assert asked(admission, 7, prefix.format(5)) is None


# -- who makes room ---------------------------------------------------------------------------------------------------------


def laggard(admission: Admission, host: str, now: float = 0.0) -> int | None:
    """The session that makes room for an address."""
    return admission.laggard(parse_address(host), now=now)


def test_in_a_full_network_whoever_has_said_least_for_longest_makes_room() -> None:
    admission = Admission(LIVE, ANYBODY)
    for session in (1, 2, 3):
        asked(admission, session, f"1.2.3.{session}")
    assert laggard(admission, "1.2.3.9") is None
    admission.stall(SessionId(1), has_spoken=True, now=1.0)
    admission.stall(SessionId(2), has_spoken=False, now=2.0)
    assert laggard(admission, "1.2.3.9", now=2.0) == 2
    # Elsewhere there is room.
    assert laggard(admission, "1.2.4.9", now=2.0) is None
    admission.release(SessionId(2))
    assert laggard(admission, "1.2.3.9", now=2.0) is None
    assert asked(admission, 4, "1.2.3.9") is None
    assert laggard(admission, "1.2.3.9", now=2.0) == 1


def test_whose_auth_has_come_makes_no_room() -> None:
    admission = Admission(LIVE, ANYBODY)
    asked(admission, 1, "1.2.3.4")
    asked(admission, 2, "1.2.3.4")
    admission.stall(SessionId(1), has_spoken=False, now=0.0)
    admission.go_on(SessionId(1))
    assert laggard(admission, "1.2.3.4") is None


def test_nobody_makes_room_in_vain() -> None:
    admission = Admission(LIVE, ANYBODY)
    asked(admission, 1, "1.2.3.4")
    asked(admission, 2, "1.2.3.4")
    asked(admission, 3, "1.2.3.5")
    admission.stall(SessionId(3), has_spoken=False, now=0.0)
    # The address itself is full of sessions that make progress.
    assert laggard(admission, "1.2.3.4") is None
    assert laggard(admission, "1.2.3.6") == 3


def test_for_an_address_that_comes_too_soon_or_is_exempt_nobody_makes_room() -> None:
    throttle = msgspec.structs.replace(LIVE, per_ip_interval_s=30, exempt_cidrs=("1.2.3.8/32",), per_subnet_live=1)
    admission = Admission(throttle, ANYBODY)
    asked(admission, 1, "1.2.3.4")
    admission.stall(SessionId(1), has_spoken=False, now=0.0)
    assert laggard(admission, "1.2.3.4", now=1.0) is None
    assert laggard(admission, "1.2.3.8", now=1.0) is None
    assert laggard(admission, "1.2.3.5", now=1.0) == 1


def test_a_session_that_is_exempt_or_has_ended_is_no_laggard() -> None:
    admission = Admission(ThrottleSettings(), ANYBODY)
    asked(admission, 1, "127.0.0.1")
    admission.stall(SessionId(1), has_spoken=False, now=0.0)
    admission.stall(SessionId(2), has_spoken=False, now=0.0)
    admission.release(SessionId(1))
    # This test is about memory, which has no public name.
    assert not admission._laggards  # noqa: SLF001


def test_a_released_session_makes_room() -> None:
    admission = Admission(LIVE, ANYBODY)
    asked(admission, 1, "1.2.3.4")
    asked(admission, 2, "1.2.3.4")
    admission.release(SessionId(1))
    assert asked(admission, 3, "1.2.3.4") is None


def test_a_second_release_is_harmless() -> None:
    admission = Admission(LIVE, ANYBODY)
    asked(admission, 1, "1.2.3.4")
    asked(admission, 2, "1.2.3.4")
    admission.release(SessionId(1))
    admission.release(SessionId(1))
    assert asked(admission, 3, "1.2.3.4") is None
    assert asked(admission, 4, "1.2.3.4") == "the address has 2 sessions"


def test_a_refused_session_takes_no_place() -> None:
    admission = Admission(LIVE, ANYBODY)
    asked(admission, 1, "1.2.3.4")
    asked(admission, 2, "1.2.3.4")
    asked(admission, 3, "1.2.3.4")
    admission.release(SessionId(3))
    assert asked(admission, 4, "1.2.3.4") == "the address has 2 sessions"


def test_one_address_may_not_come_again_within_the_interval() -> None:
    admission = Admission(INTERVAL, ANYBODY)
    assert asked(admission, 1, "1.2.3.4", now=100) is None
    assert asked(admission, 2, "1.2.3.4", now=129.9) == "the address connected within the last 30 s"
    assert asked(admission, 3, "1.2.3.5", now=129.9) is None


def test_an_attempt_that_is_refused_does_not_renew_the_interval() -> None:
    admission = Admission(INTERVAL, ANYBODY)
    asked(admission, 1, "1.2.3.4", now=100)
    assert asked(admission, 2, "1.2.3.4", now=120) is not None
    assert asked(admission, 3, "1.2.3.4", now=130) is None


def test_one_that_finds_no_place_begins_no_interval() -> None:
    full = ThrottleSettings(per_ip_live=0, per_ip_interval_s=30, exempt_cidrs=())
    admission = Admission(full, ANYBODY)
    assert asked(admission, 1, "1.2.3.4", now=100) == "the address has 0 sessions"
    admission.configure(INTERVAL, ANYBODY)
    assert asked(admission, 2, "1.2.3.4", now=101) is None


def test_the_end_of_a_session_does_not_shorten_the_interval() -> None:
    admission = Admission(INTERVAL, ANYBODY)
    asked(admission, 1, "1.2.3.4", now=100)
    admission.release(SessionId(1))
    assert asked(admission, 2, "1.2.3.4", now=101) is not None


def test_an_interval_of_zero_is_none() -> None:
    admission = Admission(ThrottleSettings(per_ip_interval_s=0, exempt_cidrs=()), ANYBODY)
    assert [asked(admission, session, "1.2.3.4") for session in range(8)] == [None] * 8


def test_an_ipv4_address_that_came_over_an_ipv6_socket_counts_as_ipv4() -> None:
    admission = Admission(LIVE, ANYBODY)
    assert asked(admission, 1, "1.2.3.4") is None
    assert asked(admission, 2, "::ffff:1.2.3.4") is None
    assert asked(admission, 3, "::ffff:1.2.3.4") == "the address has 2 sessions"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "169.254.9.9", "::1", "fd00::1", "fe80::1%eth0"]
)
def test_loopback_and_private_addresses_are_exempt_by_default(host: str) -> None:
    admission = Admission(ThrottleSettings(), ANYBODY)
    assert [asked(admission, session, host) for session in range(100)] == [None] * 100
    admission.release(SessionId(1))


def test_an_exempt_ipv4_address_is_exempt_over_an_ipv6_socket_as_well() -> None:
    admission = Admission(ThrottleSettings(), ANYBODY)
    assert [asked(admission, session, "::ffff:127.0.0.1") for session in range(50)] == [None] * 50


def test_the_deny_list_refuses_even_exempt_addresses() -> None:
    admission = Admission(ThrottleSettings(), AccessSettings(deny_cidrs=("10.0.0.0/8",)))
    assert asked(admission, 1, "10.1.2.3") == "the address is on the deny list"
    assert asked(admission, 2, "::ffff:10.1.2.3") == "the address is on the deny list"
    assert asked(admission, 3, "11.1.2.3") is None


def test_an_allow_list_admits_nobody_else() -> None:
    admission = Admission(ThrottleSettings(), AccessSettings(allow_cidrs=("1.2.3.0/24", "2001:db8::/32")))
    assert asked(admission, 1, "1.2.3.4") is None
    assert asked(admission, 2, "2001:db8::1") is None
    assert asked(admission, 3, "127.0.0.1") == "the address is not on the allow list"


def test_the_deny_list_is_stronger_than_the_allow_list() -> None:
    access = AccessSettings(allow_cidrs=("1.2.0.0/16",), deny_cidrs=("1.2.3.0/24",))
    admission = Admission(ThrottleSettings(), access)
    assert admission.refuse_address(parse_address("1.2.3.4")) == "the address is on the deny list"
    assert admission.refuse_address(parse_address("1.2.4.4")) is None


def test_a_denied_address_leaves_no_trace() -> None:
    admission = Admission(INTERVAL, AccessSettings(deny_cidrs=("1.2.3.4/32",)))
    assert asked(admission, 1, "1.2.3.4", now=0) == "the address is on the deny list"
    admission.configure(INTERVAL, ANYBODY)
    assert asked(admission, 2, "1.2.3.4", now=1) is None


def test_other_settings_hold_from_now_on() -> None:
    admission = Admission(LIVE, ANYBODY)
    asked(admission, 1, "1.2.3.4")
    asked(admission, 2, "1.2.3.4")
    admission.configure(ThrottleSettings(per_ip_live=1, per_ip_interval_s=0, exempt_cidrs=()), ANYBODY)
    admission.release(SessionId(1))
    assert asked(admission, 3, "1.2.3.4") == "the address has 1 sessions"
    admission.release(SessionId(2))
    assert asked(admission, 4, "1.2.3.4") is None


def test_addresses_of_the_past_are_forgotten() -> None:
    admission = Admission(INTERVAL, ANYBODY)
    for number in range(1000):
        assert asked(admission, number, f"9.8.{number >> 8}.{number & 255}", now=number / 100) is None
        admission.release(SessionId(number))
    asked(admission, 5000, "1.1.1.1", now=100.0)
    # This test is about memory, which has no public name.
    assert len(admission._accepted_at) == 1  # noqa: SLF001
    assert len(admission._live) == 3  # noqa: SLF001
    assert len(admission._shares) == 1  # noqa: SLF001


addresses = st.integers(0, 3).map(lambda n: parse_address(f"1.2.{n >> 1}.{n & 1}"))
steps = st.lists(st.tuples(st.integers(0, 9), st.one_of(st.none(), addresses)), max_size=60)


@given(steps)
def test_live_sessions_are_those_admitted_and_not_released(taken: list[tuple[int, Address | None]]) -> None:
    admission = Admission(LIVE, ANYBODY)
    live: dict[int, Address] = {}
    for session, address in taken:
        if address is None or session in live:
            admission.release(SessionId(session))
            live.pop(session, None)
            continue
        of_address = sum(other == address for other in live.values())
        of_subnet = sum(other[:3] == address[:3] for other in live.values())
        is_admitted = admission.book(SessionId(session), address, now=0.0) is None
        assert is_admitted is (of_address < 2 and of_subnet < 3)
        if is_admitted:
            live[session] = address


@pytest.mark.parametrize("network", ["192.0.2.0/24", "::ffff:192.0.2.0/120"])
@pytest.mark.parametrize("remote", ["192.0.2.7", "::ffff:192.0.2.7", "::ffff:c000:207"])
def test_denied_allowed_and_exempt_are_either_form_of_an_address(network: str, remote: str) -> None:
    address, other = parse_address(remote), parse_address("::ffff:203.0.113.1")
    denying = Admission(ThrottleSettings(), AccessSettings(deny_cidrs=(network,)))
    assert denying.refuse_address(address) == "the address is on the deny list"
    assert denying.refuse_address(other) is None
    allowing = Admission(ThrottleSettings(), AccessSettings(allow_cidrs=(network,)))
    assert allowing.refuse_address(address) is None
    assert allowing.refuse_address(other) == "the address is not on the allow list"
    exempt = Admission(ThrottleSettings(exempt_cidrs=(network,), per_ip_live=1), AccessSettings())
    assert [exempt.book(SessionId(number), address, now=0.0) for number in range(3)] == [None] * 3
    assert exempt.book(SessionId(3), other, now=0.0) is None
    assert exempt.book(SessionId(4), other, now=0.0) is not None
