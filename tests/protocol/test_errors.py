"""Each mistake of a peer has one answer, and a peer's text cannot harm a log."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol import errors
from rlpx.protocol.errors import (
    PEER_TEXT_MAX_CHARACTERS,
    DisconnectReason,
    NotSharedError,
    PeerError,
    QueueFullError,
    UsageError,
    bounded,
    printable,
    reading,
    severity_of,
)

# devp2p `rlpx.md`, "Disconnect (0x01)".
REASONS = {
    0x00: "disconnect_requested",
    0x01: "tcp_error",
    0x02: "protocol_breach",
    0x03: "useless_peer",
    0x04: "too_many_peers",
    0x05: "already_connected",
    0x06: "incompatible_version",
    0x07: "invalid_identity",
    0x08: "client_quitting",
    0x09: "unexpected_identity",
    0x0A: "connected_to_self",
    0x0B: "ping_timeout",
    0x10: "subprotocol_error",
}

# What the peer is told; `None` closes without a goodbye.
ANSWERS = {
    "PeerError": 0x02,
    "RlpError": 0x02,
    "HandshakeError": None,
    "FrameError": None,
    "OversizedFrameError": 0x02,
    "SnappyError": 0x02,
    "MessageError": 0x02,
    "PingFloodError": 0x02,
    "NullIdentityError": 0x07,
    "UnexpectedIdentityError": 0x09,
    "IncompatibleVersionError": 0x06,
    "UselessPeerError": 0x03,
    "StatusError": 0x10,
    "ForkIdError": 0x10,
    "TimeoutPeerError": 0x0B,
}


# How long to leave such a peer alone.
SEVERITIES = {
    "HandshakeError": "low",
    "NullIdentityError": "fatal",
    "UnexpectedIdentityError": "fatal",
    "IncompatibleVersionError": "fatal",
    "UselessPeerError": "fatal",
    "StatusError": "fatal",
}


def test_of_each_mistake_it_is_known_when_to_come_back() -> None:
    for name in ANSWERS:
        assert getattr(errors, name).severity == SEVERITIES.get(name, "medium")


@pytest.mark.parametrize(
    ("severity", "reasons"),
    [("fatal", (0x02, 0x03, 0x06)), ("low", (None, 0x00, 0x01, 0x04, 0x05, 0x08, 0x0B)), ("high", (0x07, 0x09, 0x0A, 0x10))],
)
def test_of_each_goodbye_it_is_known_when_to_come_back(severity: str, reasons: tuple[int | None, ...]) -> None:
    for reason in reasons:
        assert severity_of(None if reason is None else DisconnectReason(reason)) == severity


def test_the_reasons_and_their_labels_are_those_of_the_specification() -> None:
    assert {reason.value: reason.label for reason in DisconnectReason} == REASONS


@pytest.mark.parametrize(
    ("number", "label"), [(0x0C, "unknown_0x0c"), (0x11, "unknown_0x11"), (0xFF, "unknown_0xff"), (0x1234, "unknown_0x1234")]
)
def test_a_reason_that_the_specification_lacks_is_named_by_its_number(number: int, label: str) -> None:
    reason = DisconnectReason(number)
    assert (reason, reason.label, reason.is_known) == (number, label, False)
    assert DisconnectReason(number) == reason
    assert number not in set(DisconnectReason)
    assert severity_of(reason) == "high"
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(reason), type=DisconnectReason) == number


@pytest.mark.parametrize("value", [-1, 1 << 64, "too_many_peers", None])
def test_what_is_no_number_of_a_reason_is_none(value: object) -> None:
    with pytest.raises(ValueError, match="is not a valid DisconnectReason"):
        DisconnectReason(value)  # type: ignore[arg-type]  # as msgspec and users may ask


def test_every_mistake_of_a_peer_has_its_answer() -> None:
    answers = {
        name: found.reason
        for name, found in vars(errors).items()
        if isinstance(found, type) and issubclass(found, PeerError)
    }
    assert answers == ANSWERS


def test_a_mistake_says_in_which_message_and_field_it_is() -> None:
    error = PeerError("an integer with leading zeros")
    assert str(error) == "an integer with leading zeros"
    for place, text in [
        ("limit", "limit"),
        ("query", "query.limit"),
        ("[3]", "[3].query.limit"),
        ("queries", "queries[3].query.limit"),
        ("GetBlockHeaders", "GetBlockHeaders.queries[3].query.limit"),
    ]:
        error.inside(place)
        assert str(error) == f"{text}: an integer with leading zeros"


def test_what_is_raised_while_a_field_is_read_names_it() -> None:
    with pytest.raises(PeerError, match=r"^Hello\.version: a list$"), reading("Hello"), reading("version"):
        raise PeerError("a list")
    with pytest.raises(KeyError), reading("Hello"):
        raise KeyError
    with reading("Hello"):
        pass


@pytest.mark.parametrize("error", [UsageError, NotSharedError, QueueFullError])
def test_our_own_mistake_is_never_blamed_on_a_peer(error: type[UsageError]) -> None:
    assert not issubclass(error, PeerError)


def test_a_user_gets_a_typed_reply() -> None:
    names = {
        name: found.name for name, found in vars(errors).items() if isinstance(found, type) and issubclass(found, UsageError)
    }
    assert names == {
        "UsageError": "invalid_params",
        "NotSharedError": "not_shared",
        "NoSuchSessionError": "no_such_session",
        "QueueFullError": "queue_full",
    }


def test_ordinary_text_is_repeated_as_it_is() -> None:
    text = "Geth/v1.16.4-stable/linux-amd64/go1.24 é 語"
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("abc\u202egnp", r"abc\u202egnp"),
        ("\u2028", r"\u2028"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_could_command_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_long_text_is_cut() -> None:
    assert printable("x" * PEER_TEXT_MAX_CHARACTERS) == "x" * 128
    assert printable("x" * (PEER_TEXT_MAX_CHARACTERS + 1)) == "x" * 128
    # The longest escape of one character has ten.
    assert printable("\U000e0041" * 10_000) == r"\U000e0041" * 128


def test_a_place_may_cut_sooner_or_later() -> None:
    assert printable("x" * 300, 5) == "xxxxx"
    assert printable("\n" * 300, 2) == r"\n\n"
    assert printable("x" * 300, 256) == "x" * 256
    assert printable("x", 0) == ""


@given(text=st.text(st.characters(), max_size=200))
def test_any_text_comes_out_printable_on_one_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode("utf-8").decode("utf-8") == shown


@pytest.mark.parametrize(
    ("text", "kept"), [("", ""), ("x" * 128, "x" * 128), ("x" * 129, "x" * 125 + "..."), ("x" * 6510, "x" * 125 + "...")]
)
def test_what_is_kept_of_a_peer_has_128_characters(text: str, kept: str) -> None:
    assert bounded(text) == kept
