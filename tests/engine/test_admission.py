"""Who may connect, and how much of us one address or subnet may take."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.admission import Address, Admission, CidrList, parse_address
from engine.settings import AccessSettings, ThrottleSettings
from protocol.control import SessionId

LIVE = ThrottleSettings(per_ip_live=2, per_subnet_live=3, per_ip_interval_s=0, exempt_cidrs=())
INTERVAL = ThrottleSettings(per_ip_live=100, per_subnet_live=100, per_ip_interval_s=30, exempt_cidrs=())
ANYBODY = AccessSettings()


def asked(admission: Admission, session: int, host: str, now: float = 0.0) -> str | None:
    """Ask for one accept."""
    return admission.admit(SessionId(session), parse_address(host), now=now)


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


def test_a_zone_is_no_part_of_an_address() -> None:
    assert parse_address("fe80::1%eth0") == parse_address("fe80::1")


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
    # What it remembers cannot be asked for, and memory is the point of this test.
    assert len(admission._accepted_at) == 1  # noqa: SLF001
    assert len(admission._live) == 2  # noqa: SLF001
    assert len(admission._addresses) == 1  # noqa: SLF001


def test_an_empty_list_has_nobody_in_it() -> None:
    assert not CidrList([])
    assert parse_address("1.2.3.4") not in CidrList(["::/0"])
    assert parse_address("1.2.3.4") in CidrList(["0.0.0.0/0"])


addresses = st.integers(0, 3).map(lambda n: parse_address(f"1.2.{n >> 1}.{n & 1}"))
steps = st.lists(st.tuples(st.integers(0, 9), st.one_of(st.none(), addresses)), max_size=60)


@settings(derandomize=True, deadline=None)
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
        is_admitted = admission.admit(SessionId(session), address, now=0.0) is None
        assert is_admitted is (of_address < 2 and of_subnet < 3)
        if is_admitted:
            live[session] = address
