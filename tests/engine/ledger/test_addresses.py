"""Addresses and lists of networks, in either form of IPv4."""

from __future__ import annotations

import pytest

from rlpx.engine.ledger.addresses import CidrList, address_of, parse_address


def test_a_zone_is_no_part_of_an_address() -> None:
    assert parse_address("fe80::1%eth0") == parse_address("fe80::1")


def test_an_empty_list_has_nobody_in_it() -> None:
    assert not CidrList([])
    assert parse_address("1.2.3.4") not in CidrList(["::/0"])
    assert parse_address("1.2.3.4") in CidrList(["0.0.0.0/0"])


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("::ffff:192.0.2.0/120", "192.0.2.7", "192.0.3.7"),
        ("::ffff:c000:0200/120", "192.0.2.7", "192.0.3.7"),
        ("::ffff:192.0.2.7/128", "192.0.2.7", "192.0.2.8"),
        ("::ffff:0:0/96", "203.0.113.1", "2001:db8::1"),
        ("192.0.2.0/24", "::ffff:192.0.2.7", "::ffff:192.0.3.7"),
        ("2001:db8::/32", "2001:db8::1", "192.0.2.7"),
        # It holds the IPv4-mapped addresses and others: a network of IPv6.
        ("::/0", "2001:db8::1", "192.0.2.7"),
        ("::fffe:0:0/95", "::fffe:1:1", "192.0.2.7"),
    ],
)
def test_an_ipv4_network_is_the_same_in_its_ipv6_form(network: str, inside: str, outside: str) -> None:
    listed = CidrList([network])
    assert parse_address(inside) in listed
    assert parse_address(outside) not in listed
    assert listed


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("192.0.2.7:30303", "192.0.2.7"),
        ("[::ffff:192.0.2.7]:30303", "192.0.2.7"),
        ("[2001:db8::1]:30303", "2001:db8::1"),
        ("[fe80::1%eth0]:30303", "fe80::1"),
        ("", None),
        ("node.example.org:30303", None),
    ],
)
def test_the_address_of_a_remote_is_read_where_it_has_one(remote: str, address: str | None) -> None:
    assert address_of(remote) == (None if address is None else parse_address(address))
