"""Addresses as users write them, and which one peers may dial."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from rlpx.engine.settings import addresses
from rlpx.protocol.rlpx.host_port import parse_host_port


def test_localhost_is_bound_on_the_loopback() -> None:
    assert ipaddress.ip_address(addresses.resolve("localhost")).is_loopback
    assert addresses.resolve("127.0.0.1") == "127.0.0.1"


def test_of_a_name_with_both_kinds_the_ipv4_address_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET6, 1, 6, "", ("2001:db8::1", 0, 0, 0)), (socket.AF_INET, 1, 6, "", ("192.0.2.7", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    assert addresses.resolve("both.example") == "192.0.2.7"


def test_a_name_that_nobody_knows_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match=r"known|resolution|associated"):
        addresses.resolve("no-such-host.invalid")


def test_no_host_is_all_addresses() -> None:
    assert addresses.resolve("") in {"::", "0.0.0.0"}  # noqa: S104 - compared, not bound


def test_without_ipv6_no_host_is_all_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoIpv6(socket.socket):
        def __init__(self, family: int, kind: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported by protocol")
            super().__init__(family, kind)

    monkeypatch.setattr(socket, "socket", NoIpv6)
    assert addresses.resolve("") == "0.0.0.0"  # noqa: S104 - compared, not bound


# -- which address peers dial -----------------------------------------------------------------------------------------------


def test_the_users_word_is_no_guess() -> None:
    assert addresses.dialable("203.0.113.7", "0.0.0.0") == addresses.Dialable("203.0.113.7", is_guess=False)  # noqa: S104
    assert addresses.dialable("", "192.0.2.1") == addresses.Dialable("192.0.2.1", is_guess=False)


@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])  # noqa: S104 - compared, not bound
def test_of_all_addresses_one_is_guessed_that_can_be_dialled(bound: str) -> None:
    found = addresses.dialable("", bound)
    assert found.is_guess
    assert not ipaddress.ip_address(found.host).is_unspecified


def test_a_machine_without_a_way_out_names_its_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_sockets(*_: object) -> socket.socket:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "socket", no_sockets)
    assert addresses.dialable("", "0.0.0.0") == addresses.Dialable("127.0.0.1", is_guess=True)  # noqa: S104


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "example.org", "", "1.2.3.4:5"])  # noqa: S104
def test_what_nobody_can_dial_is_no_external_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"peers cannot dial|not an IP address"):
        addresses.external_address(text)


@pytest.mark.parametrize("text", ["203.0.113.7", "10.0.0.1", "127.0.0.1", "2001:db8::1"])
def test_an_address_of_a_machine_is_one(text: str) -> None:
    assert addresses.external_address(text) == text


def test_a_network_with_more_bits_than_it_has_is_told_what_it_is() -> None:
    assert str(addresses.network("10.0.0.0/8")) == "10.0.0.0/8"
    with pytest.raises(ValueError, match=r"the network is 10\.0\.0\.0/8"):
        addresses.network("10.0.0.1/8")
    with pytest.raises(ValueError, match="it is not a network"):
        addresses.network("example.org")


# -- endpoints --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:5555", "tcp://127.9.9.9:1", "tcp://[::1]:5555"])
def test_a_loopback_endpoint_is_one(endpoint: str) -> None:
    assert addresses.is_loopback_endpoint(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "tcp://",
        "tcp://*:5555",
        "tcp://0.0.0.0:5555",
        "tcp://[::]:5555",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:*",
        "tcp://127.0.0.1:99999",
        "tcp://localhost:5555",
        "tcp://eth0:5555",
        "tcp://10.0.0.1:5555",
        "tcp://127.0.0.1.example.org:5555",
        "ipc:///tmp/x",
        "inproc://x",
        "udp://127.0.0.1:5555",
        "127.0.0.1:5555",
    ],
)
def test_no_other_endpoint_is_taken_for_loopback(endpoint: str) -> None:
    assert not addresses.is_loopback_endpoint(endpoint)


def test_the_enode_of_all_addresses_names_one() -> None:
    for bound in ("0.0.0.0:5", "[::]:5"):
        host, port = parse_host_port(addresses.dialable_enode(f"enode://ab@{bound}").rpartition("@")[2])
        assert not ipaddress.ip_address(host).is_unspecified
        assert port == 5
    for other in ("enode://ab@127.0.0.1:5", "enode://ab@[::1]:5"):
        assert addresses.dialable_enode(other) == other
